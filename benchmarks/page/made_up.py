"""Folders as runs leave them, made up: any number of nodes and jobs in no time."""

import json
import math
import random
from pathlib import Path
from typing import Any

SOFTWARE = {"python": "3.11.7", "flwr": "1.42.0", "torch": "2.14.1", "fedagent": "0.1.0"}


def write_run(
    folder: Path,
    *,
    num_nodes: int = 20,
    num_jobs: int = 200,
    is_over: bool = True,
    every: int = 10,
    buffer_size: int = 1,
    seed: int = 0,
    metric: str = "accuracy",
    **about: Any,
) -> Path:
    """Write a made-up run of `num_jobs` jobs on `num_nodes` nodes; return its folder.

    Parameters
    ----------
    every : updates between two evaluations.
    buffer_size : updates of a version.
    is_over : whether there is a summary.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    told = _told(metric, {"strategy": "fedbuff", "fleet": "lognormal", "seed": seed, **about})
    overrides = [f"{key}={value}" for key, value in told["about"].items()]
    limits = {"updates": num_jobs, "versions": None, "seconds": None}
    beginning = {"begun": "2026-11-28T12:00:00+00:00", "is_virtual": True, "limits": limits}
    beginning |= {"overrides": overrides, "config": told["about"], "software": SOFTWARE}
    _write(folder / "run.json", [json.dumps(told | beginning)])
    jobs = _jobs(rng, num_nodes, num_jobs, buffer_size)
    _write(folder / "jobs.jsonl", map(json.dumps, jobs))
    lines, totals = _metrics(rng, jobs, every, buffer_size, metric)
    _write(folder / "metrics.jsonl", map(json.dumps, lines))
    if is_over:
        summary = told | totals | {"end": {"kind": "completed", "detail": f"{num_jobs} updates"}}
        _write(folder / "summary.json", [json.dumps(summary)])
    return folder


def _told(metric: str, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "about": {"app": "vision", "partition": "iid", **about},
        "metric": {"name": metric, "mode": "max", "source": "server"},
        "target": 0.8,
        "baseline": {"name": "nearest mean", "value": 0.7},
    }


def _jobs(
    rng: random.Random, num_nodes: int, num_jobs: int, buffer_size: int
) -> list[dict[str, Any]]:
    speeds = [math.exp(rng.gauss(0.0, 1.0)) for _ in range(num_nodes)]
    free_s = [rng.random() for _ in range(num_nodes)]
    jobs = []
    for number in range(num_jobs):
        node = number % num_nodes
        duration_s = speeds[node] * (0.8 + 0.4 * rng.random())
        free_s[node] += duration_s + (speeds[node] * rng.random() if number % 7 == 0 else 0.0)
        draw = rng.random()
        outcome = "applied" if draw < 0.9 else ("failed", "rejected", "expired")[int(30 * draw) % 3]
        is_applied = outcome == "applied"
        stale = int(speeds[node] * 4 * rng.random())
        jobs.append(
            {
                "node_id": str(1000 + node),
                "local_steps": 8,
                "duration_s": duration_s,
                "bytes_down": 1000,
                "bytes_up": 1000,
                "outcome": outcome,
                "reason": "" if is_applied else "made-up",
                "ended_s": free_s[node],
                "version": max(0, number - stale) // buffer_size,
                "staleness": stale if is_applied else None,
                "num_examples": 50.0 + node if is_applied else None,
                "discount": (1 + stale) ** -0.5 if is_applied else None,
            }
        )
    return sorted(jobs, key=lambda job: job["ended_s"])


def _metrics(
    rng: random.Random, jobs: list[dict[str, Any]], every: int, buffer_size: int, metric: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines, updates, stale, value = [], 0, 0, 0.1
    now: dict[str, Any] = {"virtual_time_s": 0.0, "time_s": 0.0, "wall_time_s": 0.0}
    reached = None
    for number, job in enumerate(jobs, start=1):
        now = {"virtual_time_s": job["ended_s"], "time_s": job["ended_s"]}
        now |= {"wall_time_s": 0.1 * number, "bytes_down": 1000 * number}
        now |= {"bytes_up": 1000 * number, "bytes_between_regions": 0}
        if job["outcome"] != "applied":
            continue
        updates, stale = updates + 1, stale + job["staleness"]
        if updates % buffer_size == 0:
            counted = {"version": updates // buffer_size, "num_updates": updates}
            counted |= {"staleness_mean": stale / updates, "staleness_max": 9}
            lines.append({"event": "version", **counted, **now})
        if updates % every == 0:
            value = 0.95 - 0.85 * math.exp(-updates / (0.3 * len(jobs))) + rng.gauss(0, 0.015)
            metrics = {metric: value, f"{metric}-class-0": value, f"{metric}-class-1": value / 2}
            counted = {"version": updates // buffer_size, "num_updates": updates}
            told = {"source": "server", **counted, **now, "metrics": metrics}
            lines.append({"event": "evaluation", **told})
            if value >= 0.8 and reached is None:
                reached = now["time_s"], updates
    busy_s = sum(job["duration_s"] for job in jobs)
    applied = [job for job in jobs if job["outcome"] == "applied"]
    applied_s = sum(job["duration_s"] for job in applied)
    useful_s = sum(job["duration_s"] / math.sqrt(1 + job["staleness"]) for job in applied)
    counts: dict[str, int] = {"applied": updates}
    for job in jobs:
        if job["outcome"] != "applied":
            name = f"{job['outcome']}({job['reason']})"
            counts[name] = counts.get(name, 0) + 1
    return lines, {
        "final_value": value,
        "best_value": value,
        "time_to_target_s": reached[0] if reached else None,
        "updates_to_target": reached[1] if reached else None,
        "num_updates": updates,
        **now,
        "dispatches": counts,
        "buffered": 0,
        "fruitless_nodes": {},
        "staleness_mean": stale / max(1, updates),
        "staleness_max": 9,
        "slots_s": 1.2 * busy_s,
        "busy_s": busy_s,
        "applied_s": applied_s,
        "useful_s": useful_s,
        "wasted_s": 1.2 * busy_s - useful_s,
        "utilisation": 1 / 1.2,
        "software": SOFTWARE,
        "params_sha256": "0" * 64,
    }


def _write(path: Path, lines: Any) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
