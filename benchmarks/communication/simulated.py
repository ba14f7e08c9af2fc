"""Bytes and metrics at equal updates, and virtual time to a target, on slow links."""

import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.configured import CONF, run
from fedagent.config import build_task, compose
from fedagent.stopping import Metric

# Of the slowest links there are; upload and download are equally fast, which flatters uploads.
ALWAYS = ("links=phones", "fleet.seconds_per_step=0.1", "strategy=fedbuff", "target=null")
WORLDS: dict[str, tuple[str, ...]] = {
    "vision": (
        *ALWAYS,
        "fleet.num_nodes=40",
        "partition=mild",
        "tuned=fedbuff",
        "concurrency=10",
        "cohort=10",
        "evaluate_every=2",
    ),
    "medical": ("app=medical", *ALWAYS, "scheduler=uniform", "app.size=32", "evaluate_every=4"),
    "language": ("app=language", *ALWAYS, "scheduler=uniform", "evaluate_every=6"),
}
_POINT = 0.01  # below what is reached without a codec: the target, of errors so much above
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


def measure(
    app: str, names: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return what each setting does, over seeds: means; the first setting is without a codec.

    ``loss`` is in the metric's own units, of an error relative to what it is without a codec.
    ``to_target_s`` is the time to within a point (of an error: 1 %) of the run without a codec, as
    a mean of as many evaluations as its own; 0 if a seed never came there.
    """
    words = [*WORLDS[app], *overrides]
    metric = build_task(compose(shlex.join(words), CONF)).metric
    runs = {
        name: [_of_one([*words, *SETTINGS[name], f"seed={seed}"], metric) for seed in seeds]
        for name in names
    }
    sign = 1 if metric.mode == "max" else -1
    rows = {}
    for name, own in runs.items():
        row = {key: statistics.mean(r[key] for r in own) for key in own[0] if key != "curve"}
        row["loss"], times = 0.0, []
        for found, whole in zip(own, runs["none"], strict=True):
            scale = 1.0 if metric.mode == "max" else whole["metric"]
            row["loss"] += sign * (whole["metric"] - found["metric"]) / scale / len(own)
            goal = whole["metric"] - sign * _POINT * scale
            there = (second for second, value in found["curve"] if sign * (value - goal) >= 0)
            times.append(next(there, None))
        row["to_target_s"] = statistics.mean(times) if None not in times else 0.0
        rows[name] = row
    whole = rows["none"]
    for row in rows.values():
        row["up_ratio"] = whole["up_bytes"] / row["up_bytes"]
        row["down_ratio"] = whole["down_bytes"] / row["down_bytes"]
        row["sooner_done"] = whole["seconds"] / row["seconds"]
        own_s = row["to_target_s"]
        row["time_ratio"] = whole["to_target_s"] / own_s if own_s else 0.0
    return rows


def _of_one(overrides: Sequence[str], metric: Metric) -> dict[str, Any]:
    """Return bytes per update up and down, seconds, the mean metric of the last quarter, a curve.

    The curve is (seconds, mean of a quarter as many evaluations until then).
    """
    summary, evaluations = run(overrides)
    values = [line["metrics"][metric.name] for line in evaluations]
    times = [line["virtual_time_s"] for line in evaluations]
    num_updates, quarter = summary["num_updates"], max(1, len(values) // 4)
    curve = [
        (times[end - 1], statistics.mean(values[end - quarter : end]))
        for end in range(quarter, len(values) + 1)
    ]
    return {
        "up_bytes": summary["bytes_up"] / num_updates,
        "down_bytes": summary["bytes_down"] / num_updates,
        "metric": curve[-1][1],
        "seconds": summary["virtual_time_s"],
        "curve": curve,
    }
