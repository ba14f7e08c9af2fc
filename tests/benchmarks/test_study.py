"""The study: which rounds are the ones to beat, and what is said of them."""

import json
import shlex

import pytest

from benchmarks.study import cells as studied
from benchmarks.study import report
from benchmarks.study.__main__ import main
from benchmarks.study.cells import BUDGET, CLOSE, DEFAULT, LIMIT_S, METHODS, MOST, SPREAD, Cell
from benchmarks.study.devices import NUM_DEVICES, PERIOD_S, write_devices
from fedagent.config import compose
from fedagent.simulation import Trace
from tests.test_configs import CONF

FAST = Cell("lognormal", "unlimited", SPREAD)
REAL = Cell("lognormal", "phones", SPREAD)
EQUAL = Cell("equal", "unlimited", SPREAD)
BY_SPEED = [Cell(f, "unlimited", "partition=label_by_speed") for f in ("lognormal", "equal")]


def ran(cell, method, *times_s, slow=0.0, size=1.0):
    return [
        {
            "cell": str(cell),
            "method": method,
            "seed": seed,
            "time_s": t,
            "slow": slow,
            "bytes": size,
            "limit_s": LIMIT_S,
        }
        for seed, t in enumerate(times_s, start=1)
    ]


RUNS = [
    *ran(FAST, "FedAvg, waits for all", 90.0, None),
    *ran(FAST, "FedAvg, deadline 4 s", 30.0, 50.0, size=2.0),
    *ran(FAST, "FedAvg, asks 2 x", 35.0, 30.0, size=4.0),
    *ran(FAST, "FedBuff, as published", 60.0, 80.0),
    *ran(FAST, DEFAULT, 15.0, 25.0, size=6.0),
    *ran(FAST, BUDGET, 30.0, 40.0),
    *ran(FAST, "staler", 8.0, 8.0),
    *ran(FAST, "CA2FL", None, 4.0),
    *ran(REAL, "FedAvg, deadline 8 s", 60.0),
    *ran(REAL, DEFAULT, 80.0),
    *ran(EQUAL, "FedAvg, waits for all", 40.0),
    *ran(EQUAL, DEFAULT, 50.0),
    *ran(BY_SPEED[0], DEFAULT, 50.0, slow=0.7),
    *ran(BY_SPEED[1], DEFAULT, 50.0, slow=0.9),
]


def test_the_rounds_to_beat_are_the_soonest_with_every_seed():
    assert report.ratios(RUNS, [FAST, REAL, EQUAL, *BY_SPEED]) == {
        "default_vs_best_sync": 30.0 / 20.0,
        "default_vs_best_sync_links": 0.75,
        "best_vs_best_sync": 30.0 / 6.0,
        "equal_ratio": 0.8,
        "slow_group": pytest.approx(-0.2),
        "byte_price": 2.0,
        "byte_budget": 2.0,
    }


@pytest.mark.parametrize(
    ("rounds_s", "own_s", "ratio"),
    [(None, 100.0, LIMIT_S / 100.0), (100.0, None, 0.0), (None, None, None), (30.0, 60.0, 0.5)],
)
def test_who_never_arrives_counts_as_arriving_at_the_end(rounds_s, own_s, ratio):
    runs = [*ran(FAST, "FedAvg, asks 2 x", rounds_s), *ran(FAST, DEFAULT, own_s)]
    assert report.ratio(runs, FAST, [DEFAULT]) == ratio


def test_devices_that_a_trace_describes_have_their_own_bandwidth():
    assert Cell("trace", "unlimited", SPREAD).bandwidth not in ("unlimited", "phones")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_configuration(method):
    words = ["fleet=lognormal", *SPREAD.split(), *METHODS[method]]
    cfg = compose(shlex.join(words), CONF)
    has_rounds_for_all = method in studied.SYNCHRONOUS and method not in studied.TIERED
    assert cfg.strategy._target_.endswith("Synchronous") == has_rounds_for_all


@pytest.mark.parametrize("is_quick", [False, True])
def test_every_cell_is_a_configuration_of_its_own(is_quick):
    cells = list(studied.cells(is_quick))
    assert len({str(cell) for cell in cells}) == len(cells)
    for cell in cells:
        compose(f"fleet={cell.fleet} links={cell.links} {cell.data}", CONF)


def test_no_run_goes_on_that_cannot_be_the_soonest(monkeypatch):
    times_s = {DEFAULT: 20.0, "FedAvg, asks 2 x": 50.0, "FedAvg, deadline 4 s": 45.0}
    asked = []

    def simulate(cell, method, seed, limit_s, words=()):
        asked.append((method, seed, limit_s))
        time_s = times_s.get(method, 1_000.0)
        return ran(cell, method, time_s if time_s <= limit_s else None)[0] | {"seed": seed}

    monkeypatch.setattr(studied, "simulate", simulate)
    runs = studied.study(FAST, [1, 2], quick=False)
    limits = {method: limit_s for method, seed, limit_s in asked if seed == 1}
    assert limits[DEFAULT] == LIMIT_S
    assert limits["FedAdam(0.03) of 60 nodes, deadline 4 s"] == MOST * 20.0
    assert limits["FedAvg, deadline 8 s"] == CLOSE * 50.0  # after the one that was there at 50 s
    assert limits["FedAvg, waits for all"] == CLOSE * 45.0
    assert limits["CA2FL"] == 20.0
    again = [m for m, seed, _ in asked if seed == 2 and m in studied.SYNCHRONOUS]
    assert again == ["FedAvg, asks 2 x", "FedAvg, deadline 4 s"]
    assert report.time_s(runs, FAST, studied.SYNCHRONOUS) == 45.0


@pytest.mark.parametrize("data", ["partition=iid", "partition=label_by_speed"])
def test_a_run_says_what_it_took(data):
    cell = Cell("equal", "unlimited", f"{data} app.model=linear fleet.num_nodes=20")
    run = studied.simulate(cell, DEFAULT, seed=1, limit_s=6.0)
    assert run["updates"] > 0 < run["bytes"]
    assert run["time_s"] is None or run["time_s"] <= 6.0
    assert ("slow" in run) == ("label_by_speed" in data)


def test_devices_that_come_and_go_are_a_fleet(tmp_path):
    path = tmp_path / "devices.csv"
    write_devices(path, seed=1)
    fleet = Trace(num_nodes=NUM_DEVICES, seconds_per_step=1.0, path=str(path))
    profiles = [fleet.profile(index) for index in range(NUM_DEVICES)]
    assert all(0.0 in profile.presence.values for profile in profiles)
    assert {profile.downloads.period_s for profile in profiles} == {PERIOD_S}
    assert profiles[0].uploads == profiles[0].downloads != profiles[1].downloads


def test_a_table_a_figure_and_json_of_what_was_run_before(tmp_path, capsys, monkeypatch):
    done = tmp_path / "runs.jsonl"
    small = next(cell for cell in studied.cells(quick=True) if not cell.by_speed)
    lines = [*ran(small, "FedAvg, deadline 8 s", 30.0), *ran(small, DEFAULT, 20.0)]
    done.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = tmp_path / "times.png"
    words = ["--quick", "--only", str(small), "--output", str(done), "--figure", str(figure)]
    monkeypatch.setattr("sys.argv", ["study", *words])
    main()
    out = capsys.readouterr().out.splitlines()
    assert f"| {small} | 30 (deadline 8 s) | - / - | 20 | 1.5x |" in out[2]
    assert json.loads(out[-1])["benchmark"] == "study"
    assert figure.stat().st_size > 10_000
