"""What the runs say: ratios, a Markdown table and a figure."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.study.cells import DEFAULT, PUBLISHED, SYNCHRONOUS, TUNED, Cell
from fedagent.report.figure import PALETTE

Runs = Sequence[dict[str, Any]]


def time_s(runs: Runs, cell: Cell, method: str) -> float:
    """Return the mean time to the target; infinity unless every seed reached it."""
    times = [r["time_s"] for r in _of(runs, cell, method)]
    return math.inf if not times or None in times else sum(times) / len(times)


def soonest(runs: Runs, cell: Cell, methods: Iterable[str]) -> str:
    """Return which method reached the target first in a cell."""
    return min(methods, key=lambda method: time_s(runs, cell, method))


def mean(runs: Runs, cell: Cell, method: str, what: str) -> float | None:
    """Return a mean over seeds; None if the method was not run there."""
    values = [r[what] for r in _of(runs, cell, method)]
    return sum(values) / len(values) if values else None


def _of(runs: Runs, cell: Cell, method: str) -> list[dict[str, Any]]:
    return [r for r in runs if r["cell"] == str(cell) and r["method"] == method]


def ratio(runs: Runs, cell: Cell, of: Iterable[str]) -> float | None:
    """Return how many times sooner the soonest of some methods is than the best rounds.

    Rounds that never got there count as having got there at the end of the run: a lower bound.
    None if neither got there.
    """
    rounds = time_s(runs, cell, soonest(runs, cell, SYNCHRONOUS))
    own = time_s(runs, cell, soonest(runs, cell, of))
    if math.isinf(own):
        return None if math.isinf(rounds) else 0.0
    return min(rounds, _limit_s(runs)) / own


def _limit_s(runs: Runs) -> float:
    """Return how long a run lasts at most."""
    return min(float(run["limit_s"]) for run in runs)


def ratios(runs: Runs, cells: Sequence[Cell]) -> dict[str, float | None]:
    """Return the study's answers."""
    spread = [c for c in cells if "label_by_speed" not in c.partition]
    fast = [c for c in spread if c.links == "unlimited" and c.fleet != "equal"]
    real = [c for c in spread if c.links == "phones" and c.fleet != "equal"]
    equal = [c for c in spread if c.links == "unlimited" and c.fleet == "equal"]
    ours = [DEFAULT, *TUNED]
    by_speed = {c.fleet: c for c in cells if "label_by_speed" in c.partition}
    slow = [
        mean(runs, c, DEFAULT, "slow") - mean(runs, by_speed["equal"], DEFAULT, "slow")
        for c in by_speed.values()
        if c.fleet != "equal" and "equal" in by_speed
    ]
    prices = [
        mean(runs, c, DEFAULT, "bytes") / mean(runs, c, soonest(runs, c, SYNCHRONOUS), "bytes")
        for c in fast
    ]
    return {
        "default_vs_best_sync": _least(ratio(runs, c, [DEFAULT]) for c in fast),
        "default_vs_best_sync_links": _least(ratio(runs, c, [DEFAULT]) for c in real),
        "best_vs_best_sync": _least(ratio(runs, c, ours) for c in fast),
        "equal_ratio": _least(ratio(runs, c, [DEFAULT]) for c in equal),
        "slow_group": _least(slow),
        "byte_price": max(prices, default=None),
    }


def _least(values: Iterable[float | None]) -> float | None:
    return min((v for v in values if v is not None), default=None)


def print_table(runs: Runs, cells: Sequence[Cell]) -> None:
    """Print a row per cell: times to the target, MB until then, the slow group's accuracy."""
    print(
        "| fleet, links, data | best rounds, s | FedBuff / FedAsync as published, s | default, s | "
        "sooner | our best, s | sooner | MB: rounds / default | slow group: rounds / default |"
    )
    print("|---" * 9 + "|")
    for cell in cells:
        rounds = soonest(runs, cell, SYNCHRONOUS)
        best = soonest(runs, cell, [DEFAULT, *TUNED])
        published = " / ".join(
            _seconds(time_s(runs, cell, m)) if _of(runs, cell, m) else "-" for m in PUBLISHED
        )
        row = [
            str(cell),
            _named(runs, cell, rounds),
            published,
            _seconds(time_s(runs, cell, DEFAULT)),
            _times(ratio(runs, cell, [DEFAULT])),
            _named(runs, cell, best),
            _times(ratio(runs, cell, [best])),
            f"{_megabytes(runs, cell, rounds)} / {_megabytes(runs, cell, DEFAULT)}",
            f"{_slow(runs, cell, rounds)} / {_slow(runs, cell, DEFAULT)}"
            if "label_by_speed" in cell.partition
            else "-",
        ]
        print(f"| {' | '.join(row)} |")


def _named(runs: Runs, cell: Cell, method: str) -> str:
    value = time_s(runs, cell, method)
    name = method.removeprefix("FedAvg, ")
    return "never" if math.isinf(value) else f"{value:.0f} ({name})"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x"


def _megabytes(runs: Runs, cell: Cell, method: str) -> str:
    value = mean(runs, cell, method, "bytes")
    return "-" if value is None else f"{value / 1e6:.0f}"


def _slow(runs: Runs, cell: Cell, method: str) -> str:
    value = mean(runs, cell, method, "slow")
    return "-" if value is None else f"{value:.2f}"


def draw(runs: Runs, cells: Sequence[Cell], path: Path) -> None:
    """Draw a bar per method group and cell: seconds to the target, shorter is better.

    What was not run has no bar.
    """
    known = {
        "rounds that wait for all": ["FedAvg, waits for all"],
        "best rounds (deadline or over-selection, tuned)": list(SYNCHRONOUS),
        "FedBuff, as published": ["FedBuff, as published"],
        "fedagent, default": [DEFAULT],
        "fedagent, best": [DEFAULT, *TUNED],
    }
    were_run = {run["method"] for run in runs}
    groups = {label: methods for label, methods in known.items() if were_run & {*methods}}
    figure = Figure(figsize=(9, 4.2))
    axes = figure.subplots()
    width, limit_s = 0.8 / len(groups), _limit_s(runs)
    for k, (label, methods) in enumerate(groups.items()):
        times = [min(time_s(runs, c, soonest(runs, c, methods)), limit_s) for c in cells]
        places = [i + (k - (len(groups) - 1) / 2) * width for i in range(len(cells))]
        axes.bar(places, times, width, label=label, color=PALETTE[k])
    axes.axhline(limit_s, color="gray", linewidth=0.8, linestyle=":")
    axes.text(len(cells) - 0.5, limit_s, "not reached", ha="right", va="bottom", color="gray")
    axes.set_yscale("log")
    axes.set_ylabel("virtual seconds to the target")
    axes.set_xticks(range(len(cells)), [_label(c) for c in cells], fontsize=8)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, 1.22))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _label(cell: Cell) -> str:
    partition = cell.partition.removeprefix("partition=").split()[0].replace("_", " ")
    links = "" if cell.links == "unlimited" else "phones' links\n"
    return f"{cell.fleet}\n{links}{partition}"
