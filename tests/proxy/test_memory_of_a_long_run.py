"""What a run keeps does not grow with its updates."""

import gc
import itertools
import tracemalloc

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import FedAsync, statistics
from fedagent.callbacks import Callback
from fedagent.proxy import run_end
from fedagent.report import Recorder
from fedagent.simulation import Lognormal
from fedagent.stopping import Metric, Plateau, Target
from tests.toy import run


class Held(Callback):
    """Notes how many bytes Python holds at some numbers of updates."""

    def __init__(self, at):
        self.at, self.held = at, []

    def on_version(self, statistics):
        if statistics.num_updates in self.at:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


def echo(num_metrics: int) -> ClientApp:
    """A client that returns what it was sent; its metrics have other names with every reply."""
    app, numbers = ClientApp(), itertools.count()

    @app.train()
    def _train(message, context):
        made_up = {f"metric-{next(numbers)}": 0.5 for _ in range(num_metrics)}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5, **made_up})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def _evaluate(message, context):
        made_up = {f"metric-{n}": 0.5 for n in range(num_metrics)}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5, **made_up})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def slope(updates: int, tmp_path, num_metrics: int = 0) -> float:
    """Return bytes per update after the first half, by when all that is kept is full."""
    held = Held(at=(updates // 2, updates))
    strategy = FedAsync(
        concurrency=2,
        fraction_evaluate=0.3,
        callbacks=[Recorder(tmp_path, Metric(), 2.0, {}), held],
        stopping=[Target(2.0), Plateau(patience=10**9)],
    )
    tracemalloc.start()
    try:
        run(
            strategy,
            Lognormal(num_nodes=8),
            rounds=updates // 2,
            client=echo(num_metrics),
            evaluate_fn=lambda version, _: MetricRecord(
                {"accuracy": 0.5, "loss": 1 / (1 + version)}
            ),
        )
    finally:
        tracemalloc.stop()
    first, last = held.held
    return (last - first) / (updates - updates // 2)


@pytest.mark.parametrize("num_metrics", [0, 200])
def test_memory_does_not_grow_with_updates(tmp_path, num_metrics, monkeypatch):
    for module in (statistics, run_end):  # full after a tenth of the time that it takes
        monkeypatch.setattr(module, "KEPT_EVALUATIONS", 100)
    updates = 600 if num_metrics else 1_200
    assert slope(updates, tmp_path, num_metrics) < 100, "bytes per update: 1 MB per 10,000"
