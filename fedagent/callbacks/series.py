"""A run as named series of numbers, for tools that draw them."""

import time
from collections import Counter

from fedagent.statistics import Evaluation, Statistics


def of_version(statistics: Statistics) -> dict[str, float]:
    """Return the running totals of a run."""
    outcomes: Counter[str] = Counter()
    for (outcome, _), count in statistics.outcomes.items():
        outcomes[outcome] += count
    return {
        "run/updates": statistics.num_updates,
        "run/time_s": statistics.now_s,
        "run/wall_time_s": statistics.wall_s,
        "staleness/mean": statistics.staleness_mean,
        "staleness/max": statistics.staleness_max,
        "traffic/bytes_down": statistics.bytes_down,
        "traffic/bytes_up": statistics.bytes_up,
        "nodes/in_flight": statistics.in_flight,
        "nodes/at_work_max": statistics.at_work_max,
        "nodes/utilisation": statistics.utilisation,
        **{f"dispatches/{outcome}": count for outcome, count in sorted(outcomes.items())},
    }


def of_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics that are numbers, by source: ``server/accuracy``."""
    return {f"{evaluation.source}/{k}": v for k, v in evaluation.numbers.items()}


def began_at(statistics: Statistics) -> float:
    """Return the date, in Unix seconds, that a run on its clock began at.

    Adding `now_s` gives dates for tools that know no other time: in simulation they run ahead or
    behind, and their distances are virtual seconds.
    """
    return time.time() - statistics.now_s
