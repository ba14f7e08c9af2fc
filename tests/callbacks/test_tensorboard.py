"""The event file, read back as TensorBoard does."""

import sys

import pytest
from flwr.app import ArrayRecord, MetricRecord
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedagent import FedBuff
from fedagent.callbacks import TensorBoard
from fedagent.errors import DataUnavailableError
from fedagent.simulation import Lognormal
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from tests.toy import Log, run


def read(directory) -> EventAccumulator:
    events = EventAccumulator(str(directory))
    events.Reload()
    return events


def loss(version, arrays):
    return MetricRecord({"loss": 1.0 / (1 + version), "per_class": [0.1, 0.2]})


def test_curves_are_over_versions_and_the_runs_clock(tmp_path):
    log = Log()
    strategy = FedBuff(
        concurrency=4,
        fraction_evaluate=0.0,
        callbacks=[TensorBoard(tmp_path), log],
    )

    run(strategy, Lognormal(num_nodes=8), rounds=6, evaluate_fn=loss)

    events, statistics = read(tmp_path), log.statistics
    losses = events.Scalars("server/loss")
    assert [e.step for e in losses] == list(range(7))
    assert [e.value for e in losses] == pytest.approx([1 / (1 + v) for v in range(7)])
    published_s = [0.0] + [now_s for _, _, now_s in log.versions]
    assert [e.wall_time - losses[0].wall_time for e in losses] == pytest.approx(
        published_s, abs=1e-4
    )
    last = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert last["run/updates"] == statistics.num_updates == 24
    assert last["traffic/bytes_up"] == statistics.bytes_up
    assert last["staleness/mean"] == pytest.approx(statistics.staleness_mean)
    assert last["dispatches/expired"] == statistics.outcomes["expired", "run-ended"] == 3
    assert "server/per_class" not in last


def test_totals_of_every_nth_version_and_the_end(tmp_path):
    strategy = FedBuff(
        concurrency=2,
        fraction_evaluate=0.0,
        callbacks=[TensorBoard(tmp_path, every=3)],
    )

    run(strategy, Lognormal(num_nodes=4), rounds=7)

    assert [e.step for e in read(tmp_path).Scalars("run/updates")] == [3, 6, 7]


def test_run_that_fails_leaves_a_complete_file(tmp_path):
    def evaluate(version, arrays):
        if version == 3:
            raise ZeroDivisionError("evaluate_fn is broken")
        return loss(version, arrays)

    strategy = FedBuff(concurrency=2, fraction_evaluate=0.0, callbacks=[TensorBoard(tmp_path)])

    with pytest.raises(ZeroDivisionError):
        run(strategy, Lognormal(num_nodes=4), rounds=7, evaluate_fn=evaluate)

    events = read(tmp_path)
    assert [e.step for e in events.Scalars("server/loss")] == [0, 1, 2]
    ended = events.Tensors("run/ended/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert ended.startswith("failed: ZeroDivisionError")


def test_resumed_run_hides_what_the_lost_part_wrote(tmp_path):
    statistics = Statistics()
    for versions in ([1, 2, 3, 4], [3]):  # the first was killed after 4, its checkpoint held 2
        tensorboard = TensorBoard(tmp_path)
        tensorboard.on_start(statistics)
        for version in versions:
            statistics.version = version
            statistics.num_updates += 1
            tensorboard.on_version(statistics)
        tensorboard.on_end(statistics, RunEnd("completed", "end"), ArrayRecord)
        statistics = Statistics(version=2, num_updates=2)

    # At 4 also stands the end of the first; the resumed one got to 3.
    assert sorted({e.step for e in read(tmp_path).Scalars("run/updates")}) == [1, 2, 3]


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[tensorboard\]"'):
        TensorBoard("runs")
