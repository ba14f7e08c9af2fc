"""How far a federation gets in each application, and how soon: beside pooled data and a baseline.

For every application and seed, on its natural split and a lognormal fleet (sigma 1.5):

baseline      what has to be beaten: `Task.baseline`
centralised   the same model on pooled data, with as many gradient steps as all nodes make together:
              `Task.centralised`
fedavg        Flower's synchronous rounds, unmodified
fedbuff       and one more asynchronous rule, the best of a few on the validation splits

Reported on the test split: the metric at the end, its share of the centralised one (for errors the
other way round, so that 1 is level and more is better), virtual time to 95 % of the centralised
metric against FedAvg, and bytes. Runs go through the real ServerApp and ClientApp.

    python -m benchmarks.applications [--app hospitals] [--quick] [--seeds 1,2,3]
    python -m benchmarks.applications --app hospitals --tune 0.05,0.1,0.2

Prints a Markdown table, then JSON on the last line: the application's name to metric, baseline,
centralised, share and speedup_vs_fedavg. An application whose package or data is not installed is
absent. ``--tune`` tries learning rates on the validation splits of seeds of their own.
"""

import argparse
import importlib.util
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import flwr
import torch

from benchmarks.configured import CONF, run
from clients.references import centralised
from fedagent.config import build_task, compose
from fedagent.errors import DataUnavailableError
from fedagent.stopping import Metric

SHARE = 0.95
TUNING_SEEDS = (1001, 1002, 1003)

Metrics = dict[str, float]
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Application:
    """How an application is measured; what is not said here stands in its conf/app/APP.yaml.

    Parameters
    ----------
    strategies : name to overrides, FedAvg first; settings were chosen on validation splits.
    best : the strategy whose numbers are reported.
    seeds : of split, model and fleet.
    quick : overrides that make a run take seconds.
    """

    strategies: dict[str, tuple[str, ...]]
    best: str
    seeds: tuple[int, ...] = (1, 2, 3)
    quick: tuple[str, ...] = ("stopping.max_updates=40",)


APPLICATIONS = {
    "recommendation": Application(
        {
            "fedavg": ("learning_rate=80",),
            "fedbuff": ("scheduler=uniform", "concurrency=20", "evaluate_every=5"),
            "ringmaster_lmo": ("evaluate_every=5",),
        },
        "ringmaster_lmo",
        quick=("stopping.max_updates=20", "concurrency=10", "app.panel_steps=5"),
    ),
    "medical": Application(
        {
            "fedavg": ("stopping.max_updates=500",),
            "fedbuff": ("evaluate_every=4",),
            "delayed_nesterov": ("stopping.max_updates=500",),
        },
        "fedbuff",
        quick=("stopping.max_updates=10", "app.size=32"),
    ),
    "hospitals": Application(
        {"fedavg": (), "fedbuff": (), "ca2fl": ()},
        "ca2fl",
        seeds=tuple(range(1, 51)),  # the test of a seed holds two healthy Swiss patients
    ),
    "speech": Application(
        {
            "fedavg": (),
            "fedbuff": ("evaluate_every=5",),
            "ca2fl": ("evaluate_every=5",),
        },
        "ca2fl",
        quick=("stopping.max_updates=12", "local_steps=2", "client.batch_size=4"),
    ),
    "detection": Application(
        {
            # Half as many steps as the asynchronous run's, in a round's many: a bound on its time.
            "fedavg": ("local_steps=24", "cohort=10", "stopping.max_updates=100"),
            "ringmaster_lmo": (),
        },
        "ringmaster_lmo",
        quick=("stopping.max_updates=10", "local_steps=4", "app.num_test=50"),
    ),
    "language": Application(
        {"fedavg": (), "fedbuff": ()},
        "fedbuff",
        seeds=(1,),  # minutes each
        quick=("stopping.max_updates=10", "app.hidden=32", "app.scored_characters=50"),
    ),
    "traffic": Application(
        {
            "fedavg": ("learning_rate=0.005",),
            "fedbuff": (),
            "fedasync": (),
        },
        "fedbuff",
        seeds=(1, 2, 3, 4, 5, 6),
        quick=("stopping.max_updates=10", "local_steps=8", "app.evaluate_every_h=67"),
    ),
    "translation": Application(
        {
            "fedavg": (
                "client=adam",
                "learning_rate=0.003",
                "local_steps=32",
                "stopping.max_updates=150",
            ),
            "fadas": (),
        },
        "fadas",
        seeds=(1,),
        quick=("stopping.max_updates=10", "local_steps=2", "app.num_test=20", "app.width=32"),
    ),
    "reinforcement": Application(
        {"fedavg": (), "fedbuff": (), "fedasync": ()},
        "fedbuff",
        quick=("stopping.max_updates=20", "app.baseline_nodes=1", "app.baseline_steps=100"),
    ),
}


# --- one application, one seed --------------------------------------------------------------------


def measure(name: str, seed: int, quick: bool) -> Outcome:
    """Return baseline, centralised reference and every strategy's run.

    Raises
    ------
    DataUnavailableError
        If the application's data is not on this machine.
    """
    application = APPLICATIONS[name]
    base = [f"app={name}", f"seed={seed}", *(application.quick if quick else ())]
    cfg = compose(shlex.join(base), CONF)
    task = build_task(cfg)
    pooled = centralised(cfg, task)
    goal = within(task.metric, pooled[task.metric.name])
    strategies = list(application.strategies) if not quick else ["fedavg", application.best]
    return {
        "baseline": task.baseline(),
        "centralised": pooled,
        "goal": goal,
        "runs": {
            strategy: simulate(
                [
                    *base,
                    f"strategy={strategy}",
                    *application.strategies[strategy],
                    *(application.quick if quick else ()),  # a strategy's own may be longer
                    f"target={goal}",
                ]
            )
            for strategy in strategies
        },
    }


def within(metric: Metric, pooled: float) -> float:
    """Return the value that is 95 % of the centralised one; of an error, as much above it."""
    return SHARE * pooled if metric.mode == "max" else pooled / SHARE


def simulate(overrides: Sequence[str]) -> Outcome:
    """Run the application; return its test metrics at the end, time to target and bytes."""
    begin = time.perf_counter()
    summary, seen = run(overrides)
    wall_s = time.perf_counter() - begin
    return {
        "metrics": seen[-1]["metrics"],
        "time_to_target_s": summary["time_to_target_s"],
        "virtual_time_s": summary["virtual_time_s"],
        "bytes": summary["bytes_down"] + summary["bytes_up"],
        "num_updates": summary["num_updates"],
        "wall_s": wall_s,
    }


# --- over seeds -----------------------------------------------------------------------------------


def summarise(name: str, outcomes: Sequence[Outcome], metric: Metric) -> Outcome:
    """Return means over seeds; a time is null unless every seed reached the goal.

    ``speedup_is_at_least`` says that some of FedAvg's runs ended before they reached it.
    """
    key, best = metric.name, APPLICATIONS[name].best
    pooled = mean_of(outcome["centralised"][key] for outcome in outcomes)
    rows = {}
    for strategy in outcomes[0]["runs"]:
        runs = [outcome["runs"][strategy] for outcome in outcomes]
        value = mean_of(run["metrics"][key] for run in runs)
        times = [run["time_to_target_s"] for run in runs]
        rows[strategy] = {
            "metric": value,
            "share": value / pooled if metric.mode == "max" else pooled / value,
            "time_to_target_s": mean_of(times) if None not in times else None,
            "reached": sum(t is not None for t in times),
            "bytes": mean_of(run["bytes"] for run in runs),
            "wall_s": mean_of(run["wall_s"] for run in runs),
            "metrics": means(run["metrics"] for run in runs),
            "by_seed": [run["metrics"][key] for run in runs],
            "times_by_seed": times,
        }
    synchronous_s = rows["fedavg"]["time_to_target_s"]
    # FedAvg that never got there took longer than its whole runs: what it is beaten by is a bound.
    least_s = mean_of(outcome["runs"]["fedavg"]["virtual_time_s"] for outcome in outcomes)
    for row in rows.values():
        own_s = row["time_to_target_s"]
        row["speedup_vs_fedavg"] = (synchronous_s or least_s) / own_s if own_s else None
        row["speedup_is_at_least"] = synchronous_s is None
    return {
        "metric_name": key,
        "metric": rows[best]["metric"],
        "baseline": mean_of(outcome["baseline"][key] for outcome in outcomes),
        "centralised": pooled,
        "share": rows[best]["share"],
        "speedup_vs_fedavg": rows[best]["speedup_vs_fedavg"],
        "speedup_is_at_least": rows[best]["speedup_is_at_least"],
        "strategy": best,
        "seeds": len(outcomes),
        "strategies": rows,
        "baseline_metrics": means(outcome["baseline"] for outcome in outcomes),
        "baseline_by_seed": [outcome["baseline"][key] for outcome in outcomes],
        "centralised_metrics": means(outcome["centralised"] for outcome in outcomes),
        "centralised_by_seed": [outcome["centralised"][key] for outcome in outcomes],
    }


def mean_of(values: Iterable[float]) -> float:
    """Return the mean."""
    return statistics.fmean(values)


def means(dicts: Iterable[Metrics]) -> Metrics:
    """Return the mean of every metric."""
    parts = list(dicts)
    return {key: mean_of(part[key] for part in parts) for key in parts[0]}


def print_table(name: str, found: Outcome) -> None:
    """Print one application's rows."""
    print(f"\n**{name}**, {found['metric_name']}, {found['seeds']} seeds: baseline "
          f"{found['baseline']:.4g}, centralised {found['centralised']:.4g}\n")  # fmt: skip
    print("| strategy | metric | share of centralised | time to 95 % | sooner than FedAvg | MB |")
    print("|---|---|---|---|---|---|")
    for strategy, row in found["strategies"].items():
        time_s, sooner = row["time_to_target_s"], row["speedup_vs_fedavg"]
        reached = f"{row['reached']} of {found['seeds']} seeds"
        reached = reached if time_s is None else f"{time_s:.0f} s"
        bound = ">= " if row["speedup_is_at_least"] else ""
        faster = f"{bound}{sooner:.1f}x" if sooner else "-"
        print(
            f"| {strategy} | {row['metric']:.4g} | {row['share']:.3f} | {reached} | {faster} | "
            f"{row['bytes'] / 1e6:.3g} |"
        )
    print(flush=True)


# --- choosing settings, never on the test split ---------------------------------------------------


def tune(name: str, rates: Sequence[float], quick: bool) -> None:
    """Print, per strategy and learning rate, what the validation splits of other seeds say."""
    application = APPLICATIONS[name]
    seeds = TUNING_SEEDS[:1] if quick else TUNING_SEEDS
    goals, metric = {}, None
    for seed in seeds:
        base = [f"app={name}", f"seed={seed}", "evaluate_on=validation"]
        base += application.quick if quick else ()
        cfg = compose(shlex.join(base), CONF)
        task = build_task(cfg)
        metric = task.metric
        goals[seed] = centralised(cfg, task)[metric.name]
    assert metric is not None
    print(f"centralised, on validation: {mean_of(goals.values()):.4g}")
    for strategy, extra in application.strategies.items():
        for rate in rates:
            runs = []
            for seed, pooled in goals.items():
                words = [f"app={name}", f"seed={seed}", *(application.quick if quick else ())]
                words += [f"strategy={strategy}", *extra, f"learning_rate={rate}"]
                words += ["evaluate_on=validation", f"target={within(metric, pooled)}"]
                runs.append(simulate(words))
            value = mean_of(run["metrics"][metric.name] for run in runs)
            times = [run["time_to_target_s"] for run in runs]
            said = [f"{t:.0f}" if t is not None else "-" for t in times]
            print(
                f"{strategy} {rate}: {value:.4g}, seconds to target {', '.join(said)}", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--app", choices=APPLICATIONS, help="this one only")
    parser.add_argument("--quick", action="store_true", help="under a minute: one seed, shorter")
    parser.add_argument("--seeds", type=_numbers, help="such as 1,2,3, instead of the usual ones")
    parser.add_argument("--tune", type=_numbers, help="learning rates, such as 0.05,0.1")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Outcome] = {}
    absent: dict[str, str] = {}
    for name in [options.app] if options.app else APPLICATIONS:
        if importlib.util.find_spec(f"clients.{name}") is None:
            absent[name] = f"there is no clients/{name} here"
        elif options.tune:
            tune(name, options.tune, options.quick)
        else:
            seeds = [1] if options.quick else APPLICATIONS[name].seeds
            seeds = [int(seed) for seed in options.seeds] if options.seeds else seeds
            try:
                outcomes = measure_all(name, seeds, options.quick, options.workers)
            except DataUnavailableError as error:
                absent[name] = str(error)
                continue
            metric = build_task(compose(f"app={name}", CONF)).metric
            found[name] = summarise(name, outcomes, metric)
            print_table(name, found[name])
    machine = {
        "benchmark": "applications",
        "quick": options.quick,
        "absent": absent,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": flwr.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(found | {"about": machine}))


def measure_all(name: str, seeds: Sequence[int], quick: bool, workers: int) -> list[Outcome]:
    """Return the outcome of every seed, each in a process if there are several."""
    jobs = [name] * len(seeds), seeds, [quick] * len(seeds)
    if len(seeds) == 1 or workers == 1:
        return list(_announced(name, map(measure, *jobs)))
    with ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
        return list(_announced(name, pool.map(measure, *jobs)))


def _announced(name: str, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Say when a seed is done: all of them take long."""
    begin = time.perf_counter()
    for number, outcome in enumerate(outcomes, 1):
        took_s = time.perf_counter() - begin
        print(f"{name}: {number} seeds in {took_s:.0f} s", file=sys.stderr, flush=True)
        yield outcome


def _one_thread() -> None:
    torch.set_num_threads(1)


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
