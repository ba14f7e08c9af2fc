"""What a run tells its callbacks, and when."""

import io
import logging

import pytest
from flwr.serverapp.strategy import FedAvg

from fedagent import FedAsync
from fedagent.callbacks import Callback, JsonLog, Prometheus, TensorBoard
from fedagent.simulation import Equal, Lognormal, Scripted
from fedagent.statistics import Evaluation
from fedagent.stopping import MaxUpdates
from fedagent.strategies.synchronous import Synchronous
from fedagent.wire.records import digest
from tests.toy import Log, run


def test_settlement_says_how_stale_an_update_was_and_how_long_it_took():
    """Node 0 answers after 1 and 2 s, node 1 after 2.5 s, when two versions are out."""
    log = Log()
    strategy = FedAsync(
        concurrency=2, stopping=[MaxUpdates(3)], callbacks=[log], fraction_evaluate=0.0
    )

    run(strategy, Scripted(num_nodes=2, times=(1.0, 2.5)))

    applied = [s for s in log.settlements if s.outcome == "applied"]
    assert [s.duration_s for s in applied] == pytest.approx([1.0, 1.0, 2.5])
    assert [s.staleness for s in applied] == [0, 0, 2]
    assert [s.staleness for s in log.settlements if s.outcome == "expired"] == [None]


def test_statistics_know_who_is_connected_and_idle():
    seen = []

    class Nodes(Callback):
        def on_version(self, statistics):
            seen.append((statistics.num_nodes, statistics.num_idle))

    run(FedAsync(concurrency=3, callbacks=[Nodes()], fraction_evaluate=0.0), Equal(num_nodes=5))

    assert set(seen) == {(5, 2)}


def test_model_is_the_same_with_monitors_and_without(tmp_path):
    def model(*callbacks):
        strategy = FedAsync(concurrency=3, callbacks=callbacks, fraction_evaluate=0.0)
        return digest(run(strategy, Lognormal(num_nodes=6), rounds=12).result.arrays)

    monitors = Prometheus(port=0), JsonLog("debug", io.StringIO()), TensorBoard(tmp_path)
    assert model(*monitors) == model()


def test_callbacks_are_there_while_nodes_are_waited_for():
    told = []

    class Early(Callback):
        def on_start(self, statistics):
            told.append((statistics.is_virtual, statistics.num_nodes))

        def on_end(self, statistics, end, arrays):
            told.append(str(end))

    strategy = FedAsync(min_available_nodes=3, callbacks=[Early()], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=2), timeout=10.0)

    assert told[0] == (True, 0)
    assert told[1].startswith("stalled: only 2 of min_available_nodes=3")


class Stubborn(Callback):
    """Raises at the run's end."""

    def __init__(self, error):
        self.error = error

    def on_end(self, statistics, end, arrays):
        raise self.error


class Ends(Callback):
    """Keeps what it hears of the run's end."""

    def __init__(self):
        self.heard = []

    def on_end(self, statistics, end, arrays):
        self.heard.append((end.kind, arrays() is not None))


def asynchronous(callbacks):
    return FedAsync(concurrency=2, callbacks=callbacks, fraction_evaluate=0.0)


def synchronous(callbacks):
    return Synchronous(FedAvg(fraction_evaluate=0.0), callbacks=callbacks)


@pytest.mark.parametrize("build", [asynchronous, synchronous])
@pytest.mark.parametrize("error", [OSError("first"), KeyboardInterrupt("first")])
def test_everybody_hears_the_end_once_and_the_first_error_is_raised(build, error):
    before, after = Ends(), Ends()
    strategy = build([before, Stubborn(error), Stubborn(ValueError("second")), after])
    with pytest.raises(type(error), match="first"):
        run(strategy, Equal(num_nodes=3), rounds=2)
    assert before.heard == after.heard == [("completed", True)]


@pytest.mark.parametrize("build", [asynchronous, synchronous])
def test_what_fails_after_an_error_hides_neither_the_error_nor_the_end(build, caplog, monkeypatch):
    class Full(Callback):
        def on_version(self, statistics):
            raise OSError("no space left")

    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    after = Ends()
    with pytest.raises(OSError, match="no space left") as raised:
        run(build([Full(), Stubborn(ValueError("later")), after]), Equal(num_nodes=3), rounds=2)
    assert raised.value.__context__ is None
    assert after.heard == [("failed", True)]
    assert "Stubborn failed too: later" in caplog.text


def test_numbers_of_an_evaluation_leave_out_lists():
    metrics = {"accuracy": 0.5, "errors": 3, "per_class": [0.1, 0.9]}

    assert Evaluation(1, 0.0, 1, "server", metrics).numbers == {"accuracy": 0.5, "errors": 3.0}
