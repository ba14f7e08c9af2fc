"""Calibration: the devices that come out are those that went in."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp

from fedagent import FedBuff, keys, run_simulation
from fedagent.errors import ConfigurationError
from fedagent.nodes.device_file import parse
from fedagent.report import Recorder
from fedagent.report.calibration import calibrate, write_devices
from fedagent.report.jobs import Job, read_jobs
from fedagent.simulation import Fleet, Links, Lognormal, Trace
from fedagent.stopping import Metric
from tests.toy import client_app, model


def record(folder, fleet: Fleet, local_steps: int, num_rounds: int = 6) -> None:
    """Run a fleet and leave what a run leaves."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        recorder = Recorder(folder, Metric(), None, {})
        FedBuff(buffer_size=4, callbacks=[recorder]).start(
            grid,
            ArrayRecord(model().state_dict()),
            num_rounds,
            train_config=ConfigRecord({keys.LOCAL_STEPS: local_steps}),
        )

    run_simulation(app, client_app(), fleet=fleet, seed=1)


def job(node: str, steps: int | None, duration_s: float, size: int = 500) -> Job:
    return Job(node, steps, duration_s, size, size)


def test_a_simulated_fleet_comes_back_speeds_and_links(tmp_path):
    fleet = Lognormal(num_nodes=8, sigma=1.0, seed=2, links=Links(0.0, 50.0, 50.0))
    for steps in (4, 40):
        record(tmp_path / str(steps), fleet, steps, num_rounds=20)
    found = calibrate(read_jobs(tmp_path))
    assert [device.name for device in found.devices] == [str(i) for i in fleet.node_ids]
    times = [device.seconds_per_step for device in found.devices]
    assert times == pytest.approx(fleet.all_seconds_per_step(), rel=1e-4)
    assert [d.downloads.mean for d in found.devices] == pytest.approx([50.0] * 8, rel=1e-3)
    assert (found.num_with_links, found.jitter) == (8, pytest.approx(0.0, abs=1e-6))


def test_what_is_calibrated_takes_as_long_when_it_is_simulated(tmp_path):
    fleet = Lognormal(num_nodes=4, sigma=1.0, seed=2, links=Links(0.0, 50.0, 50.0))
    for steps in (4, 40):
        record(tmp_path / "real" / str(steps), fleet, steps, num_rounds=20)
    path = tmp_path / "devices.csv"
    said = write_devices(tmp_path / "real", path, force=False)
    assert f"fedagent run fleet=trace fleet.path={path} fleet.num_nodes=4" in said
    record(tmp_path / "again", Trace(path=str(path), num_nodes=4), 9)
    record(tmp_path / "expected", fleet, 9)
    again, expected = (
        [(j.node_id, j.duration_s) for j in read_jobs(tmp_path / name)]
        for name in ("again", "expected")
    )
    assert [node for node, _ in again] == [node for node, _ in expected]
    assert [s for _, s in again] == pytest.approx([s for _, s in expected], rel=1e-3)


def test_jitter_is_told_and_moves_the_speeds_little(tmp_path):
    fleet = Lognormal(num_nodes=4, sigma=1.0, seed=2, jitter=0.1)
    for steps in (4, 40):
        record(tmp_path / str(steps), fleet, steps, num_rounds=50)
    found = calibrate(read_jobs(tmp_path))
    times = [device.seconds_per_step for device in found.devices]
    assert times == pytest.approx(fleet.all_seconds_per_step(), rel=0.05)
    assert found.jitter == pytest.approx(0.1, rel=0.3)
    assert "fleet.jitter=0." in write_devices(tmp_path, None, force=False)


def test_jobs_of_one_size_leave_the_bandwidth_open():
    found = calibrate([job("a", 4, 8.0), job("a", 4, 12.0), job("b", 2, 3.0), job("b", 4, 5.0)])
    a, b = found.devices
    assert (a.seconds_per_step, a.downloads.mean) == (2.5, np.inf)
    assert (b.seconds_per_step, b.downloads.mean, b.uploads.mean) == (1.0, 1000.0, 1000.0)
    assert (found.num_jobs, found.num_with_links) == (4, 1)


def test_what_is_left_open_is_said_with_the_way_out(tmp_path):
    record(tmp_path, Lognormal(num_nodes=4, links=Links(0.0, 50.0, 50.0)), 4)
    said = write_devices(tmp_path, None, force=False)
    assert "bandwidth of 0." in said
    assert "jobs of two sizes" in said


def test_nodes_are_in_the_order_of_their_numbers():
    found = calibrate([job(name, 1, 1.0) for name in ("1010", "999", "1001")])
    assert [device.name for device in found.devices] == ["999", "1001", "1010"]


def test_jobs_without_a_size_tell_nothing():
    with pytest.raises(ConfigurationError, match="Send local-steps with every job"):
        calibrate([job("a", None, 3.0)])


def test_a_file_that_is_there_is_lost_only_if_told_so(tmp_path):
    record(tmp_path, Lognormal(num_nodes=4), 4)
    (tmp_path / "devices.csv").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"devices.csv is there already.*--force"):
        write_devices(tmp_path, None, force=False)
    assert (tmp_path / "devices.csv").read_text() == "mine"
    write_devices(tmp_path, None, force=True)
    assert len(parse((tmp_path / "devices.csv").read_text(), "devices.csv")) == 4
