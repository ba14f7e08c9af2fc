"""What was found, as Markdown tables, a figure and JSON."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from fedagent.report.figure import PALETTE

Result = dict[str, Any]

DIGITS_COLUMNS = [
    "time to target, s",
    "against FedAvg",
    "updates to target",
    "slowdown",
    "against FedAvg, equal speeds",
    "accuracy",
    "slow group's",
    "staleness, mean / max",
    "rates, client / server",
]


def print_tables(results: Result) -> None:
    """Print everything as Markdown."""
    if fleets := results.get("quadratic"):
        names = list(fleets["equal"])
        _print_row("slowdown (T/T*)", names)
        _print_row("---", ["---"] * len(names))
        for fleet, rows in fleets.items():
            _print_row(
                fleet,
                [
                    _number(row["slowdown"]) + (f" ({row['ratio']:.2f})" if "ratio" in row else "")
                    for row in rows.values()
                ],
            )
        print()
    for partition, rows in results.get("digits", {}).items():
        _print_row(
            partition,
            DIGITS_COLUMNS,
        )
        _print_row("---", ["---"] * len(DIGITS_COLUMNS))
        for name, row in rows.items():
            reached = "" if math.isfinite(row["time_s"]) else f" ({row['reached']} reached)"
            _print_row(
                name,
                [
                    _number(row["time_s"]) + reached,
                    _number(row["speedup"], "x"),
                    _number(row["updates"]),
                    _number(row["slowdown"]),
                    _number(row["equal_speedup"], "x"),
                    f"{row['accuracy']:.3f}",
                    f"{row['slow_accuracy']:.3f}",
                    f"{row['staleness_mean']:.1f} / {row['staleness_max']}",
                    f"{row['client_learning_rate']:g} / {row['server_learning_rate']:g}",
                ],
            )
        print()
    if rows := results.get("schedulers"):
        _print_row("two classes, 25x", ["time to target, s", "updates", "wasted", "busy", "rate"])
        _print_row("---", ["---"] * 5)
        for name, row in rows.items():
            _print_row(
                name,
                [
                    _number(row["time_s"]),
                    _number(row["updates"]),
                    f"{row['wasted']:.0%}",
                    f"{row['utilisation']:.0%}",
                    f"{row['client_learning_rate']:g}",
                ],
            )
        print()


def _print_row(first: str, cells: list[str]) -> None:
    print(f"| {first} | {' | '.join(cells)} |")


def _number(value: float, unit: str = "") -> str:
    if not math.isfinite(value):
        return "-"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def draw(results: Result, path: Path) -> None:
    """Draw accuracy against time, one panel per partition."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    partitions = results["digits"]
    shown = ["fedavg", "fedasync", "fedbuff", "delay_adaptive", "ca2fl", "ace", "fedstaleweight"]
    figure = Figure(figsize=(4 * len(partitions), 3.6), layout="constrained")
    panels = figure.subplots(1, len(partitions), sharey=True, squeeze=False)[0]
    for axes, (partition, rows) in zip(panels, partitions.items(), strict=True):
        for colour, name in zip(PALETTE, [n for n in shown if n in rows], strict=False):
            ends = [curve[-1][0] for curve in rows[name]["curves"]]
            times = np.geomspace(1, min(ends), 200)
            curves = [_held(curve, times) for curve in rows[name]["curves"]]
            axes.plot(times, np.mean(curves, 0), color=colour, label=name, linewidth=1.5)
        axes.set(xscale="log", xlabel="virtual seconds", title=partition)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy")
    panels[-1].legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _held(curve: list[tuple[float, int, float]], times: np.ndarray) -> np.ndarray:
    """Return the last score at each of `times`."""
    at_s, _, scores = (np.array(column) for column in zip(*curve, strict=True))
    return scores[np.searchsorted(at_s, times, side="right") - 1]


def plain(value: Any) -> Any:
    """Return `value` as JSON holds it: null for what is not finite, no curves."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if k != "curves"}
    return None if isinstance(value, float) and not math.isfinite(value) else value
