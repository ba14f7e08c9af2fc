"""What a user gets who sets nothing.

A default is a promise: to change one changes the results of everybody who relied on it, so it takes
a line here as well. What the papers do not say is from docs/algorithms.md.
"""

import inspect
import math
from dataclasses import fields
from typing import Any

import pytest

from fedagent import mixing, rules, scheduling, stopping
from fedagent.nodes import backoff, deadlines, geography
from fedagent.rules import staleness
from fedagent.scheduling.speed import Speeds
from fedagent.statistics import Statistics

DEFAULTS: dict[Any, dict[str, Any]] = {
    rules.ACE: {"num_nodes": 1, "server_learning_rate": 0.05, "max_age": None},
    rules.AREA: {"num_nodes": 1, "publish_every": 3},
    rules.ASGD: {"server_learning_rate": 1.0},
    rules.CA2FL: {"buffer_size": 10, "server_learning_rate": 1.0, "num_nodes": 1},
    rules.CentredClipping: {"radius": None, "steps": 5},
    rules.DCASGD: {"lambda_": 2.0, "adaptive": True, "ema": 0.95, "server_learning_rate": 1.0},
    rules.DelayedNesterov: {"period": 10, "momentum": 0.9, "server_learning_rate": 1.0},
    rules.FADAS: {
        "buffer_size": 5,
        "server_learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-08,
        "max_staleness": 1,
    },
    rules.GeometricMedian: {"steps": 8, "smoothing": 1e-06},
    rules.OnePerNode: {"keep": "newest"},
    rules.TrimmedMean: {"share": 0.3},
    rules.FedAsync: {"alpha": 0.6},
    rules.FedBuff: {
        "buffer_size": 10,
        "server_learning_rate": 1.0,
        "normalise": "buffer",
        "weighted": True,
    },
    rules.FedNova: {"buffer_size": 10, "server_learning_rate": 1.0, "weighted": True},
    rules.FedStaleWeight: {"buffer_size": 10, "server_learning_rate": 1.0, "average": True},
    rules.HeLoCo: {"server_learning_rate": 0.03, "momentum": 0.9, "keep_cosine": 0.2},
    rules.Hierarchical: {"send_every": 32, "merge_weight": 0.25, "links": None, "root_region": 0},
    rules.Malenia: {"batch_size": None, "server_learning_rate": 1.0},
    rules.PORT: {"buffer_size": 10, "w_c": 1.0, "w_s": 3.0, "beta": 10.0},
    rules.Rennala: {"buffer_size": 10, "server_learning_rate": 1.0},
    rules.Rescaled: {"max_weight": 5.0},
    rules.Ringleader: {"server_learning_rate": 1.0},
    rules.Ringmaster: {"max_staleness": None, "server_learning_rate": 1.0},
    rules.RingmasterLMO: {
        "shrink_after": None,
        "max_staleness": None,
        "server_learning_rate": 0.01,
        "momentum": 0.9,
    },
    scheduling.AutoConcurrency: {"staleness": 4.0},
    scheduling.DyLU: {
        "max_steps": 50,
        "first_steps": 1,
        "ema": 0.9,
        "learning_rate": None,
        "seed": 0,
    },
    scheduling.FairnessCap: {"max_ratio": 2.0},
    scheduling.FedCompass: {
        "min_steps": 20,
        "max_steps": 100,
        "slack": 1.5,
        "ema": 0.9,
        "learning_rate": None,
        "seed": 0,
    },
    scheduling.NodeSettings: {
        "local_steps": None,
        "learning_rate": None,
        "batch_size": None,
        "prefetch": None,
    },
    scheduling.Paced: {
        "pace_s": None,
        "typical_steps": 2,
        "max_steps": 32,
        "communication_share": 0.5,
        "run_share": 0.05,
        "bytes_per_s": None,
        "first_steps": 1,
        "ema": 0.5,
        "learning_rate": None,
        "seed": 0,
    },
    scheduling.RoundRobin: {"local_steps": None, "learning_rate": None, "seed": 0},
    Speeds: {"ema": 0.9},
    scheduling.Tiers: {
        "num_tiers": 5,
        "cohort": 10,
        "first_steps": 1,
        "local_steps": None,
        "learning_rate": None,
        "seed": 0,
    },
    scheduling.Uniform: {"local_steps": None, "learning_rate": None, "seed": 0},
    scheduling.Utility: {
        "metric": "train-loss",
        "beta": 0.5,
        "exploration": 0.3,
        "candidates": 16,
        "local_steps": None,
        "learning_rate": None,
        "seed": 0,
    },
    mixing.LearnedMixing: {"threshold": 0.2, "warmup": 3, "sketch_size": 1024, "seed": 0},
    mixing.Mixing: {"buffer_size": 1, "consensus": 0.0},
    mixing.MixingMatrix: {"stochastic": True, "is_connected": True},
    mixing.erdos_renyi: {"probability": 0.2, "seed": 0},
    mixing.from_file: {"stochastic": True},
    mixing.grouped: {"num_nodes": None},
    mixing.metropolis: {"is_connected": True},
    mixing.pair: {"c_12": 0.5, "c_21": 0.5, "stochastic": True},
    mixing.torus: {"columns": None},
    staleness.exponential: {"beta": 0.1},
    staleness.harmonic: {"beta": 1.0},
    staleness.hinge: {"a": 10.0, "b": 4.0},
    staleness.polynomial: {"a": 0.5},
    staleness.threshold: {"limit": 10.0},
    stopping.Metric: {"name": "accuracy", "mode": "max", "source": "server"},
    stopping.Plateau: {"patience": 20, "min_delta": 0.0},
    stopping.StoppingConfig: {
        "max_rounds": None,
        "max_versions": None,
        "max_updates": None,
        "max_seconds": None,
        "at_target": False,
        "patience": None,
        "min_delta": 0.0,
    },
    backoff.Backoff: {"base_s": 1.0, "cap_s": 300.0, "storm": 20},
    deadlines.Deadlines: {"factor": 3.0, "floor_s": 60.0},
    geography.ByAttribute: {"key": "region"},
    geography.ByMeasure: {"key": "latency-s"},
    geography.Geography: {"has_edges": False},
    geography.Links: {
        "latency_s": 0.0,
        "download_bytes_per_s": math.inf,
        "upload_bytes_per_s": math.inf,
    },
    geography.Listed: {"key": "partition-id"},
}


PLAIN = (bool, int, float, str, type(None))


def plain_defaults(target: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(target).parameters.items()
        if isinstance(parameter.default, PLAIN)
    }


@pytest.mark.parametrize("target", DEFAULTS, ids=lambda target: target.__name__)
def test_a_setting_that_is_left_out_has_its_default(target):
    assert plain_defaults(target) == DEFAULTS[target]


@pytest.mark.parametrize("room", [mixing, rules, scheduling], ids=lambda room: room.__name__)
def test_no_public_setting_is_left_out_above(room):
    public = [getattr(room, name) for name in room.__all__]
    settings = [
        target
        for target in public
        if target not in (rules.BufferedRule, scheduling.Scheduler)  # bases: not set by users
        and target not in (scheduling.Assignment, scheduling.Observation)  # made by the proxy
        and inspect.isclass(target) | inspect.isfunction(target)
        and plain_defaults(target)
    ]
    assert len(settings) >= 7
    assert [target.__name__ for target in settings if target not in DEFAULTS] == []


def test_statistics_begin_with_nothing_counted():
    assert not [f.name for f in fields(Statistics) if getattr(Statistics(), f.name)]
