"""The study: which rounds are the ones to beat, and what is said of them."""

import json

import pytest

from benchmarks.study import report
from benchmarks.study.__main__ import main
from benchmarks.study.cells import DEFAULT, LIMIT_S, METHODS, Cell, cells, methods_of, simulate
from fedagent.config import compose
from tests.test_configs import CONF

FAST = Cell("lognormal", "unlimited", "partition=dirichlet partition.alpha=0.5")
REAL = Cell("lognormal", "phones", FAST.partition)
EQUAL = Cell("equal", "unlimited", FAST.partition)
BY_SPEED = [Cell(f, "unlimited", "partition=label_by_speed") for f in ("lognormal", "equal")]


def ran(cell, method, *times_s, slow=0.0, size=1.0):
    return [
        {
            "cell": str(cell),
            "method": method,
            "time_s": t,
            "slow": slow,
            "bytes": size,
            "limit_s": LIMIT_S,
        }
        for t in times_s
    ]


RUNS = [
    *ran(FAST, "FedAvg, waits for all", 90.0, None),
    *ran(FAST, "FedAvg, deadline 4 s", 30.0, 50.0, size=2.0),
    *ran(FAST, "FedAvg, asks 2 x", 45.0, 45.0),
    *ran(FAST, DEFAULT, 15.0, 25.0, size=6.0),
    *ran(FAST, "Ringmaster LMO", 8.0, 8.0),
    *ran(REAL, "FedAvg, deadline 8 s", 60.0),
    *ran(REAL, DEFAULT, 80.0),
    *ran(EQUAL, "FedAvg, waits for all", 40.0),
    *ran(EQUAL, DEFAULT, 50.0),
    *ran(BY_SPEED[0], DEFAULT, 50.0, slow=0.7),
    *ran(BY_SPEED[1], DEFAULT, 50.0, slow=0.9),
]


def test_the_rounds_to_beat_are_the_soonest_that_always_arrive():
    assert report.ratios(RUNS, [FAST, REAL, EQUAL, *BY_SPEED]) == {
        "default_vs_best_sync": 2.0,
        "default_vs_best_sync_links": 0.75,
        "best_vs_best_sync": 5.0,
        "equal_ratio": 0.8,
        "slow_group": pytest.approx(-0.2),
        "byte_price": 3.0,
    }


@pytest.mark.parametrize(
    ("rounds_s", "own_s", "ratio"),
    [(None, 100.0, LIMIT_S / 100.0), (100.0, None, 0.0), (None, None, None), (30.0, 60.0, 0.5)],
)
def test_who_never_arrives_counts_as_arriving_at_the_end(rounds_s, own_s, ratio):
    runs = [*ran(FAST, "FedAvg, asks 2 x", rounds_s), *ran(FAST, DEFAULT, own_s)]
    assert report.ratio(runs, FAST, [DEFAULT]) == ratio


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_configuration(method):
    words = [*FAST.overrides, *METHODS[method]]
    cfg = compose(" ".join(words), CONF)
    is_synchronous = method.startswith("FedAvg")
    assert cfg.strategy._target_.endswith("Synchronous") == is_synchronous


@pytest.mark.parametrize("is_quick", [False, True])
def test_every_cell_has_the_default_and_rounds_to_beat(is_quick):
    for cell in cells(is_quick):
        methods = methods_of(cell, is_quick)
        assert DEFAULT in methods
        assert any(method.startswith("FedAvg") for method in methods)


def test_a_run_says_what_it_took():
    cell = Cell("equal", "unlimited", "partition=iid", ("app.model=linear", "fleet.num_nodes=20"))
    run = simulate(cell, DEFAULT, seed=1, limit_s=6.0)
    assert run["curve"][-1][0] <= 6.0
    assert run["updates"] > 0 < run["bytes"]
    assert 0.0 < run["accuracy"] <= 1.0
    assert run["time_s"] is None or run["time_s"] <= 6.0


def test_a_table_a_figure_and_json_of_what_was_run_before(tmp_path, capsys, monkeypatch):
    done = tmp_path / "runs.jsonl"
    small = next(cell for cell in cells(quick=True) if "label_by_speed" in cell.partition)
    lines = [
        {**run, "seed": 1}
        for method in methods_of(small, quick=True)
        for run in ran(small, method, 20.0, slow=0.5)
    ]
    done.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = tmp_path / "times.png"
    words = ["--quick", "--only", str(small), "--output", str(done), "--figure", str(figure)]
    monkeypatch.setattr("sys.argv", ["study", *words])
    main()
    out = capsys.readouterr().out.splitlines()
    assert f"| {small} | 20 (deadline 8 s) |" in out[2]
    assert json.loads(out[-1])["benchmark"] == "study"
    assert figure.stat().st_size > 10_000
