"""An app with a server_fn: the same bytes and the right time, however it is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedagent import run_simulation
from fedagent.simulation import Equal, Lognormal, Runtime, TwoClass
from fedagent.simulation.flower_app import FlowerApp

FOLDER = Path(__file__).parent / "legacy"


@pytest.fixture(autouse=True)
def _in_its_folder(monkeypatch):
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(FOLDER)


def fedagent(*words: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fedagent", "run", *words]
    return subprocess.run(
        command,
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )


def simulated(report: Path, fleet, workers: int = 0, settings: str = "", seed: int = 3):
    """What the app's rounds came to, and what the grid saw."""
    app = FlowerApp.found_in(FOLDER)
    result = run_simulation(
        app.serverapp,
        app.clientapp,
        fleet=fleet,
        seed=seed,
        runtime=Runtime(workers=workers),
        run_config=app.run_config([f"{settings} report='{report}'"]),
    )
    return json.loads(report.read_text()), result.statistics


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_and_a_simulation_give_the_same_bytes_and_times(workers, tmp_path):
    report, out = tmp_path / "rounds.json", tmp_path / "out"
    words = ["fleet=lognormal", "fleet.num_nodes=20", "seed=3", f"runtime.workers={workers}"]
    done = fedagent(
        *words,
        f"output_dir={out}",
        "--run-config",
        f"lr=0.5 num-server-rounds=5 report='{report}'",
    )
    assert done.returncode == 0, done.stderr
    by_command = json.loads(report.read_text())
    assert len(by_command) == 6  # before the first round, and after each
    assert by_command[-1]["loss"] < 0.5 * by_command[0]["loss"]

    fleet = Lognormal(num_nodes=20, seed=3)
    settings = "lr=0.5 num-server-rounds=5"
    here, statistics = simulated(tmp_path / "here.json", fleet, 0, settings)
    assert by_command == here
    told = json.loads((out / "simulation.json").read_text())
    assert told["virtual_s"] == statistics.now_s
    assert told["num_updates"] == statistics.num_updates == 5 * 10
    assert told["outcomes"] == {"applied": 50}
    assert "50 updates" in done.stdout
    assert "virtual" in done.stdout


def test_another_seed_gives_other_bytes(tmp_path):
    one, _ = simulated(tmp_path / "1.json", Equal(num_nodes=6), seed=1)
    two, _ = simulated(tmp_path / "2.json", Equal(num_nodes=6), seed=2)
    assert one[-1]["sha256"] != two[-1]["sha256"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fleet", "slowest_s"), [(Equal(num_nodes=12), 1.0), (TwoClass(num_nodes=12, ratio=9.0), 9.0)]
)
def test_a_round_and_its_evaluation_take_as_long_as_their_slowest_client(
    fleet, slowest_s, workers, tmp_path
):
    settings = "num-server-rounds=2 fraction-fit=1.0"
    _, statistics = simulated(tmp_path / "rounds.json", fleet, workers, settings)
    # Training is everybody's; whoever evaluates, half of the fleet, takes no longer.
    assert 2 * slowest_s < statistics.now_s <= 4 * slowest_s
    assert statistics.num_updates == 24
    assert statistics.evaluation_outcomes.total() == 12
