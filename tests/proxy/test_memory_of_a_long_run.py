"""What a run keeps does not grow with its updates."""

import gc
import tracemalloc

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import FedAsync
from fedagent.callbacks import Callback
from fedagent.report import Recorder
from fedagent.simulation import Lognormal
from fedagent.stopping import Metric, Plateau, Target
from tests.toy import run


class Held(Callback):
    """Notes how many bytes Python holds at some versions, without Flower's Result."""

    def __init__(self, at):
        self.at, self.held, self.result = at, [], lambda: None

    def on_version(self, statistics):
        result = self.result()
        result.train_metrics_clientapp.clear()
        result.evaluate_metrics_serverapp.clear()
        if statistics.version in self.at:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


def echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def _train(message, context):
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def slope(updates: int, tmp_path) -> float:
    """Return bytes per update after the first third, by when all that is kept is full."""
    held = Held(at=(updates // 3, updates))
    strategy = FedAsync(
        concurrency=4,
        fraction_evaluate=0.0,
        callbacks=[Recorder(tmp_path, Metric(), 2.0, {}), held],
        stopping=[Target(2.0), Plateau(patience=10**9)],
    )
    held.result = lambda: strategy.proxy.result
    tracemalloc.start()
    try:
        run(
            strategy,
            Lognormal(num_nodes=8),
            rounds=updates,
            client=echo(),
            evaluate_fn=lambda version, _: MetricRecord(
                {"accuracy": 0.5, "loss": 1 / (1 + version)}
            ),
        )
    finally:
        tracemalloc.stop()
    first, last = held.held
    return (last - first) / (updates - updates // 3)


def test_memory_does_not_grow_with_updates(tmp_path):
    assert slope(4_500, tmp_path) < 100, "bytes per update: 1 MB per 10,000"
