"""What the runs say: ratios, a Markdown table and a figure."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.study.cells import BUDGET, DEFAULT, FEDBUFF, PUBLISHED, SYNCHRONOUS, TUNED, Cell
from fedagent.report.figure import PALETTE

Runs = Sequence[dict[str, Any]]


def time_s(runs: Runs, cell: Cell, methods: Iterable[str]) -> float:
    """Return the mean time to the target, of the soonest with every seed.

    Infinity if with one seed none of the methods reached it.
    """
    times = [run["time_s"] or math.inf for run in _soonest(runs, cell, methods)]
    return sum(times) / len(times) if times else math.inf


def _soonest(runs: Runs, cell: Cell, methods: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the run that was the soonest to the target, for every seed."""
    of = [run for method in methods for run in _of(runs, cell, method)]
    for seed in sorted({run["seed"] for run in of}):
        yield min((r for r in of if r["seed"] == seed), key=lambda r: r["time_s"] or math.inf)


def mean(runs: Runs, cell: Cell, methods: Iterable[str], what: str) -> float | None:
    """Return a mean over seeds of those that were the soonest; None if none was run there."""
    values = [run[what] for run in _soonest(runs, cell, methods)]
    return sum(values) / len(values) if values else None


def _of(runs: Runs, cell: Cell, method: str) -> list[dict[str, Any]]:
    return [r for r in runs if r["cell"] == str(cell) and r["method"] == method]


def ratio(runs: Runs, cell: Cell, of: Iterable[str]) -> float | None:
    """Return how many times sooner the soonest of some methods is than the best rounds.

    Rounds that were not there when their run ended count as there at that moment: a lower bound.
    None if neither got there.
    """
    rounds = [run["time_s"] or run["limit_s"] for run in _soonest(runs, cell, SYNCHRONOUS)]
    own = time_s(runs, cell, of)
    if not rounds or math.isinf(own):
        return None if math.isinf(time_s(runs, cell, SYNCHRONOUS)) else 0.0
    mean_s: float = sum(rounds) / len(rounds)
    return mean_s / own


def ratios(runs: Runs, cells: Sequence[Cell]) -> dict[str, float | None]:
    """Return the study's answers."""
    spread = [c for c in cells if not c.by_speed]
    unequal = [c for c in spread if c.fleet != "equal"]
    fast = [c for c in unequal if c.bandwidth == "unlimited"]
    by_speed = {c.fleet: mean(runs, c, [DEFAULT], "slow") for c in cells if c.by_speed}
    at_equal = by_speed.pop("equal", None)
    return {
        "default_vs_best_sync": _least(ratio(runs, c, [DEFAULT]) for c in fast),
        "default_vs_best_sync_links": _least(
            ratio(runs, c, [DEFAULT]) for c in unequal if c not in fast
        ),
        "best_vs_best_sync": _least(ratio(runs, c, [DEFAULT, *TUNED]) for c in fast),
        "equal_ratio": _least(
            ratio(runs, c, [DEFAULT])
            for c in spread
            if c.fleet == "equal" and c.bandwidth == "unlimited"
        ),
        "slow_group": _least(
            slow - at_equal for slow in by_speed.values() if slow is not None and at_equal
        ),
        "byte_price": max((p for c in fast if (p := byte_price(runs, c))), default=None),
        "byte_budget": _least(
            time_s(runs, c, FEDBUFF) / time_s(runs, c, [BUDGET])
            for c in cells
            if _of(runs, c, BUDGET)
        ),
    }


def byte_price(runs: Runs, cell: Cell) -> float | None:
    """Return the default's bytes over the best rounds'; None where only one of them was run."""
    own, rounds = (mean(runs, cell, m, "bytes") for m in ([DEFAULT], SYNCHRONOUS))
    return None if own is None or rounds is None else own / rounds


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
        ours = [DEFAULT, *TUNED]
        published = " / ".join(
            _seconds(time_s(runs, cell, [m])) if _of(runs, cell, m) else "-" for m in PUBLISHED
        )
        row = [
            str(cell),
            _named(runs, cell, SYNCHRONOUS),
            published,
            _seconds(time_s(runs, cell, [DEFAULT])),
            _sooner(runs, cell, [DEFAULT]),
            _named(runs, cell, ours),
            _sooner(runs, cell, ours),
            f"{_megabytes(runs, cell, SYNCHRONOUS)} / {_megabytes(runs, cell, [DEFAULT])}",
            f"{_slow(runs, cell, SYNCHRONOUS)} / {_slow(runs, cell, [DEFAULT])}"
            if cell.by_speed
            else "-",
        ]
        print(f"| {' | '.join(row)} |")


def _named(runs: Runs, cell: Cell, methods: Iterable[str]) -> str:
    """Return the mean time, and what was the soonest with most seeds."""
    soonest = [run["method"] for run in _soonest(runs, cell, methods)]
    if not soonest or math.isinf(value := time_s(runs, cell, methods)):
        return "never"
    return f"{value:.0f} ({Counter(soonest).most_common(1)[0][0].removeprefix('FedAvg, ')})"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def _sooner(runs: Runs, cell: Cell, methods: Iterable[str]) -> str:
    """Return the ratio; rounds that were never there make it a lower bound."""
    value = ratio(runs, cell, methods)
    at_least = "at least " if math.isinf(time_s(runs, cell, SYNCHRONOUS)) else ""
    return "-" if value is None else f"{at_least}{value:.1f}x"


def _megabytes(runs: Runs, cell: Cell, methods: Iterable[str]) -> str:
    value = mean(runs, cell, methods, "bytes")
    return "-" if value is None else f"{value / 1e6:.0f}"


def _slow(runs: Runs, cell: Cell, methods: Iterable[str]) -> str:
    value = mean(runs, cell, methods, "slow")
    return "-" if value is None else f"{value:.2f}"


def draw(runs: Runs, cells: Sequence[Cell], path: Path) -> None:
    """Draw a bar per method group and cell: seconds to the target, shorter is better.

    What was not run has no bar; what was not there has one as long as its run.
    """
    known = {
        "best rounds (deadline or over-selection, tuned)": list(SYNCHRONOUS),
        "FedBuff, as published": list(FEDBUFF),
        "fedagent, default": [DEFAULT],
    }
    cells = [cell for cell in cells if not cell.by_speed]
    were_run = {run["method"] for run in runs}
    groups = {label: methods for label, methods in known.items() if were_run & {*methods}}
    figure = Figure(figsize=(max(9.0, 0.9 * len(cells)), 4.2))
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for k, (label, methods) in enumerate(groups.items()):
        for i, cell in enumerate(cells):
            soonest = list(_soonest(runs, cell, methods))
            if not soonest:
                continue
            height = sum(run["time_s"] or run["limit_s"] for run in soonest) / len(soonest)
            place = i + (k - (len(groups) - 1) / 2) * width
            axes.bar(place, height, width, label=None if i else label, color=PALETTE[k])
            if any(run["time_s"] is None for run in soonest):
                axes.text(place, height, "not there", ha="center", va="bottom", fontsize=6)
    axes.set_yscale("log")
    axes.set_ylabel("virtual seconds to the target")
    axes.set_xticks(range(len(cells)), [_label(c) for c in cells], fontsize=7)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.15))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _label(cell: Cell) -> str:
    words = (word for word in cell.data.split() if word.startswith(("partition", "app=")))
    data = " ".join(word.partition("=")[2] for word in words).replace("_", " ")
    links = "" if cell.links == "unlimited" else "phones' links\n"
    return f"{cell.fleet}\n{links}{data}"
