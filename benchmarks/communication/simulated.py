"""Bytes, accuracy and virtual time on slow links, at equal updates."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.configured import run

# Of the slowest links there are; upload and download are equally fast, which flatters uploads.
WORLD = (
    "fleet.num_nodes=40",
    "fleet.seconds_per_step=0.1",
    "links=phones",
    "partition=mild",
    "strategy=fedbuff",
    "tuned=fedbuff",
    "concurrency=10",
    "cohort=10",
    "evaluate_every=2",
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "none": ("codec=none",),
    "int8": ("codec=int8",),
    "int4": ("codec=int4",),
    "powersgd": ("codec=powersgd",),
    "topk+int4": ("codec=[topk,int4]",),
    "topk:0.005": ("codec=topk", 'codec.up.around="topk:0.005"'),
    "topk:0.005 without feedback": (
        "codec=topk",
        'codec.up.around="topk:0.005"',
        "codec.feedback=none",
    ),
    "randk:0.05": ("codec=topk", 'codec.up.around="randk:0.05"'),
    "randk:0.05 without feedback": (
        "codec=topk",
        'codec.up.around="randk:0.05"',
        "codec.feedback=none",
    ),
    "qafel": ("codec=qafel",),
    "topk+int4 both ways": ("codec=[topk,int4]", "codec.down='topk:0.1+int4'"),
}
QUICK = ("none", "topk+int4", "topk+int4 both ways", "randk:0.05 without feedback")


def measure(names: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what each setting does, over seeds: means of what `_of_one` returns."""
    rows = {}
    for name in names:
        runs = [_of_one([*WORLD, *overrides, *SETTINGS[name], f"seed={seed}"]) for seed in seeds]
        rows[name] = {key: statistics.mean(r[key] for r in runs) for key in runs[0]}
    whole = rows["none"]
    for row in rows.values():
        row["up_ratio"] = whole["up_bytes"] / row["up_bytes"]
        row["down_ratio"] = whole["down_bytes"] / row["down_bytes"]
        row["loss"] = whole["accuracy"] - row["accuracy"]
        row["time_ratio"] = whole["seconds"] / row["seconds"]
    return rows


def _of_one(overrides: Sequence[str]) -> dict[str, float]:
    """Return bytes per update up and down, seconds, and the mean accuracy of the last quarter."""
    summary, evaluations = run(overrides)
    accuracies = [line["metrics"]["accuracy"] for line in evaluations]
    num_updates = summary["num_updates"]
    return {
        "up_bytes": summary["bytes_up"] / num_updates,
        "down_bytes": summary["bytes_down"] / num_updates,
        "accuracy": statistics.mean(accuracies[-max(1, len(accuracies) // 4) :]),
        "seconds": summary["virtual_time_s"],
    }
