"""Set runs side by side: those that differ in the seed only become one row."""

import json
import logging
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedagent.report.runs import RunRecord

COMPARABLE = ("app", "fleet", "links", "partition", "metric", "target", "clock")
"""What two rows must share before the ratio of their times means anything."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spread:
    """One quantity over the seeds that have it.

    Attributes
    ----------
    mean : their mean.
    std : their sample standard deviation (n - 1), or None for one seed.
    count : how many seeds have it.
    """

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment, over its seeds.

    Attributes
    ----------
    name : what sets it apart from the other rows, such as "strategy=fedbuff fleet=lognormal".
    experiment : its `about` without the seed, and with metric, target and clock ("virtual" or
        "real").
    runs : its completed runs, one per seed: all that follows is over them.
    unfinished : its other runs, which no number here includes.
    num_reached : how many of them reached the target.
    time_to_target_s, updates_to_target : over the runs that reached it; None if none did.
    speed_up : mean time to target of the first row with the same app, fleet, links, partition,
        metric, target and clock, divided by this row's; None unless both reached the target.
    final_value : the metric's last value, over the runs where it is finite.
    baseline : what there was to beat, over the runs that know it.
    baseline_name : what reaches it; None where no run says, or not all the same.
    num_updates, num_bytes, staleness_mean, utilisation : over all runs; bytes in both directions.
    staleness_max : the largest of all runs; None without any.
    """

    name: str
    experiment: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    unfinished: tuple[RunRecord, ...]
    num_reached: int
    time_to_target_s: Spread | None
    updates_to_target: Spread | None
    speed_up: float | None
    final_value: Spread | None
    baseline: Spread | None
    baseline_name: str | None
    num_updates: Spread | None
    num_bytes: Spread | None
    staleness_mean: Spread | None
    staleness_max: float | None
    utilisation: Spread | None

    @property
    def drawn(self) -> tuple[RunRecord, ...]:
        """The runs that a figure shows: those that count, or the others where none does."""
        return self.runs or self.unfinished

    @property
    def remark(self) -> str:
        """What became of the unfinished runs, such as "1 stalled, 2 stopped"; empty without any."""
        kinds = Counter(run.end.kind for run in self.unfinished)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def compare(runs: Iterable[RunRecord]) -> list[Row]:
    """Return one row per experiment, in the order in which the experiments first appear.

    Speed-ups are against the first row with the same app, fleet, links and partition (and metric,
    target and clock), not against the first row of all: the time to a target says as much about the
    fleet and the data as about the strategy, so only such rows are comparable. A seed that never
    reached the target has no time to it; the mean is over those that did, and
    ``Row.num_reached`` says how many. A run that stalled, failed or was stopped counts nowhere.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(_key(_experiment(run)), []).append(run)
    experiments = [_experiment(group[0]) for group in groups.values()]
    names = _names(experiments, list(groups.values()))
    baselines: dict[str, Spread | None] = {}
    rows = []
    for name, experiment, everything in zip(names, experiments, groups.values(), strict=True):
        group = [run for run in everything if run.end.is_complete]
        _warn_of_repeats(group)
        time_s = _spread(run.time_to_target_s for run in group)
        baseline_s = baselines.setdefault(
            _key({key: experiment.get(key) for key in COMPARABLE}), time_s
        )
        rows.append(
            Row(
                name=name,
                experiment=experiment,
                runs=tuple(group),
                unfinished=tuple(run for run in everything if not run.end.is_complete),
                num_reached=time_s.count if time_s else 0,
                time_to_target_s=time_s,
                updates_to_target=_spread(run.updates_to_target for run in group),
                speed_up=_ratio(baseline_s, time_s),
                final_value=_spread(run.final_value for run in group),
                baseline=_spread(run.baseline.value if run.baseline else None for run in group),
                baseline_name=_only({run.baseline.name for run in group if run.baseline}),
                num_updates=_spread(run.num_updates for run in group),
                num_bytes=_spread(run.num_bytes for run in group),
                staleness_mean=_spread(run.staleness_mean for run in group),
                staleness_max=max((run.staleness_max for run in group), default=None),
                utilisation=_spread(run.utilisation for run in group),
            )
        )
    return rows


def shared(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what all rows have in common, and their names therefore leave out."""
    differing = _differing([row.experiment for row in rows])
    return {key: value for key, value in rows[0].experiment.items() if key not in differing}


def _experiment(run: RunRecord) -> dict[str, Any]:
    about = {key: value for key, value in run.about.items() if key != "seed"}
    return about | {
        "metric": run.metric.name,
        "target": run.target,
        "clock": "virtual" if run.is_virtual else "real",
    }


def _key(experiment: Mapping[str, Any]) -> str:
    return json.dumps(experiment, sort_keys=True)


def _differing(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ, or that some have not, in order of appearance."""
    keys = dict.fromkeys(key for experiment in experiments for key in experiment)
    return [
        key
        for key in keys
        if len({_key({key: e[key]}) if key in e else "" for e in experiments}) > 1
    ]


def _names(
    experiments: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[RunRecord]]
) -> list[str]:
    if len(experiments) == 1:  # nothing to tell apart: the strategy is what one asks for first
        strategy = experiments[0].get("strategy")
        return [str(strategy) if strategy else groups[0][0].directory.name]
    differing = _differing(experiments)
    return [" ".join(f"{key}={e[key]}" for key in differing if key in e) for e in experiments]


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else None
    return Spread(statistics.fmean(known), std, len(known))


def _only(names: set[str]) -> str | None:
    return names.pop() if len(names) == 1 else None


def _ratio(baseline: Spread | None, own: Spread | None) -> float | None:
    return baseline.mean / own.mean if baseline and own and own.mean > 0 else None


def _warn_of_repeats(group: Sequence[RunRecord]) -> None:
    seen: dict[str, RunRecord] = {}
    for run in group:
        seed = run.about.get("seed")
        first = seen.setdefault(_key({"seed": seed}), run)
        if first is not run and seed is not None:
            logger.warning(
                "%s repeats seed %s of %s: both count, and the +- is too small.",
                run.directory,
                seed,
                first.directory,
            )
