"""One cell of a table: a method, tuned on seeds of its own, then averaged over seeds."""

import math
import statistics
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from benchmarks.convergence import quadratic
from benchmarks.convergence.digits import Digits, slow_accuracy
from benchmarks.convergence.loop import asynchronous
from benchmarks.convergence.methods import (
    BASELINES,
    CLIENT_RATES,
    CONCURRENCY,
    DIGITS,
    LOCAL_STEPS,
    QUADRATIC,
    SCHEDULERS,
    TARGET,
    UPDATES,
)
from benchmarks.convergence.report import Result
from benchmarks.convergence.rounds import synchronous
from benchmarks.convergence.trace import Budget, Trace
from fedagent.scheduling import Uniform

TUNING_SEEDS = (1000, 1001, 1002)


def tune(
    run: Callable[[tuple[float, ...], int, float], Trace],
    grid: Iterable[tuple[float, ...]],
    seeds: Iterable[int],
) -> tuple[float, ...]:
    """Return the point of the grid that reaches the target first; else the one that ends best.

    ``run(point, seed, limit_s)`` may give up after `limit_s`: others were faster.
    """
    best, best_s, best_score = None, math.inf, -math.inf
    for point in grid:
        total_s = 0.0
        for seed in seeds:
            trace = run(point, seed, best_s - total_s)
            total_s += trace.time_to_target_s
            if total_s >= best_s:
                break
        if total_s < best_s:
            best, best_s = point, total_s
        elif math.isinf(best_s) and (best is None or trace.final_score > best_score):
            best, best_score = point, trace.final_score
    assert best is not None, "the grid is empty"
    return best


def quadratic_cell(fleet: str, name: str, starts_together: bool, seeds: int, quick: bool) -> Result:
    """Return the time of one rule on one fleet; nodes begin together, or at random moments."""
    seconds = quadratic.FLEETS[fleet](np.random.default_rng(1))
    problem = quadratic.Quadratic()

    def run(point: tuple[float, ...], seed: int, limit_s: float = math.inf) -> Trace:
        return asynchronous(
            problem,
            QUADRATIC[name](),
            Uniform(seed=seed),
            seconds,
            concurrency=quadratic.NODES,
            local_steps=1,
            learning_rate=point[0],
            seed=seed,
            budget=Budget(10_000, limit_s, at_target=True),
            phases=None
            if starts_together
            else 1.0 - np.random.default_rng(seed).random(quadratic.NODES),
        )

    # Likely rates first: what comes later is given up as soon as it is slower.
    exponents = (-7, -5, 0) if quick else (-5, -4, -6, -3, -7, -2, -8, -1, 0, 1, -9)
    point = tune(run, [(2.0**k,) for k in exponents], TUNING_SEEDS[:1])
    if not quick:
        fine = [(point[0] * 2.0 ** (k / 4),) for k in (0, -1, 1, -2, 2, -3, 3)]
        point = tune(run, fine, TUNING_SEEDS)
    traces = [run(point, seed) for seed in range(1, seeds + 1)]
    return {
        "time_s": mean(t.time_to_target_s for t in traces),
        "updates": mean(t.updates_to_target for t in traces),
        "learning_rate": point[0],
    }


def minibatch_cell(seeds: int, quick: bool) -> dict[int, float]:
    """Return rounds(B), for the B that T* is the minimum over."""
    rates = [2.0 ** (k / 2) for k in (range(-2, 4, 2) if quick else range(-6, 5))]
    batches = (1, 5, 20, 100) if quick else (1, 2, 5, 10, 20, 50, 100, 200, 500)
    rounds = {}
    for batch in batches:
        runs = partial(quadratic.minibatch_rounds, batch)
        rate = min(rates, key=lambda r: sum(runs(r, seed) for seed in TUNING_SEEDS))
        rounds[batch] = mean(runs(rate, seed) for seed in range(1, seeds + 1))
    return rounds


def digits_cell(partition: str, name: str, seeds: int, quick: bool) -> Result:
    """Return how one method fares with lognormal speeds, and how soon it is with equal ones."""
    updates = 400 if quick else DIGITS[name].updates if name in DIGITS else UPDATES

    def run(point: tuple[float, ...], seed: int, budget: Budget, is_equal: bool = False) -> Trace:
        client_rate, server_rate = point
        seconds = speeds("equal" if is_equal else "lognormal", seed)
        problem = Digits(partition, seconds, seed, 0.8 if quick else TARGET)
        if name in BASELINES:
            trace = synchronous(
                problem,
                seconds,
                cohort=CONCURRENCY,
                local_steps=LOCAL_STEPS,
                learning_rate=client_rate,
                seed=seed,
                budget=budget,
                cutoff=BASELINES[name],
            )
        else:
            method = DIGITS[name]
            trace = asynchronous(
                problem,
                method.rule(server_rate),
                Uniform(seed=seed),
                seconds,
                concurrency=method.concurrency,
                local_steps=LOCAL_STEPS,
                learning_rate=client_rate,
                seed=seed,
                budget=budget,
            )
        return trace

    server_rates = DIGITS[name].server_rates if name in DIGITS else (1.0,)
    grid = [(c, s) for s in server_rates for c in ((0.2,) if quick else CLIENT_RATES)]
    point = tune(
        lambda p, seed, limit_s: run(p, seed, Budget(updates, limit_s, True, 10)),
        grid[:1] if quick else grid,
        TUNING_SEEDS[:1],
    )
    traces = [run(point, seed, Budget(updates, score_every=10)) for seed in range(1, seeds + 1)]
    equal = [
        run(point, seed, Budget(updates, at_target=True, score_every=10), is_equal=True)
        for seed in range(1, seeds + 1)
    ]
    time_s = mean(t.time_to_target_s for t in traces)
    equal_s = mean(t.time_to_target_s for t in equal)
    return {
        "time_s": time_s,
        "reached": sum(math.isfinite(t.time_to_target_s) for t in traces),
        "updates": mean(t.updates_to_target for t in traces),
        "equal_time_s": equal_s,
        "slowdown": ratio(time_s, equal_s),
        "end_s": mean(t.statistics.now_s for t in traces),
        "accuracy": mean(t.final_score for t in traces),
        "slow_accuracy": mean(slow_accuracy(t.vector) for t in traces),
        "staleness_mean": mean(t.statistics.staleness_mean for t in traces),
        "staleness_max": max(t.statistics.staleness_max for t in traces),
        "client_learning_rate": point[0],
        "server_learning_rate": point[1],
        "curves": [t.curve for t in traces],
    }


def scheduler_cell(name: str, buffer_size: int, seeds: int, quick: bool) -> Result:
    """Return the waste and the time of one scheduler on the fleet of two classes."""

    def run(rate: float, seed: int, budget: Budget) -> Trace:
        scheduler, rule = SCHEDULERS[name](seed, buffer_size)
        seconds = speeds("two-class", seed)
        return asynchronous(
            Digits("iid", seconds, seed, 0.8 if quick else TARGET),
            rule,
            scheduler,
            seconds,
            concurrency=CONCURRENCY,
            local_steps=1,
            learning_rate=rate,
            seed=seed,
            budget=budget,
        )

    horizon_s = 2000.0 if quick else 10_000.0
    (rate,) = tune(
        lambda point, seed, limit_s: run(
            point[0], seed, Budget(10_000, min(limit_s, horizon_s), at_target=True)
        ),
        [(rate,) for rate in ((0.2,) if quick else CLIENT_RATES)],
        TUNING_SEEDS[:1],
    )
    budget = Budget(10_000, horizon_s, score_every=10)
    traces = [run(rate, seed, budget) for seed in range(1, seeds + 1)]
    return {
        "time_s": mean(t.time_to_target_s for t in traces),
        "updates": mean(t.updates_to_target for t in traces),
        "wasted": mean(
            t.statistics.wasted_s / (t.statistics.concurrency * t.statistics.now_s) for t in traces
        ),
        "utilisation": mean(t.statistics.utilisation for t in traces),
        "client_learning_rate": rate,
    }


def speeds(fleet: str, seed: int) -> np.ndarray:
    """Return the (100,) seconds per local step of a fleet."""
    return quadratic.FLEETS[fleet](np.random.default_rng(seed))


def mean(values: Iterable[float]) -> float:
    """Return the mean."""
    return statistics.fmean(values)


def ratio(numerator: float, denominator: float) -> float:
    """Return the ratio of two times; NaN if the second was never reached."""
    return numerator / denominator if math.isfinite(denominator) else math.nan
