"""``python without_a_name.py NAME ...``: a small run with a Flower that has renamed NAME.

The name is another one throughout Flower's own source, as in a later version: Flower still works,
and fedagent does not find it. For every NAME (the empty one: nothing is renamed) a forked process
prints a line of JSON: the sha256 of the final models, or the error, and what was logged.
"""

import importlib.machinery
import json
import logging
import os
import re
import sys

import torch

ARRAYS = {"w": torch.zeros(3, 2), "seen": torch.tensor(0)}


class Renaming(importlib.machinery.PathFinder):
    """Finds Flower's modules, in whose source one name is another."""

    name = ""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        found = super().find_spec(fullname, path, target)
        is_source = found and isinstance(found.loader, importlib.machinery.SourceFileLoader)
        if is_source and fullname.startswith("flwr.") and not fullname.startswith("flwr.proto"):
            found.loader = Renamed(found.loader.name, found.loader.path)
        return found


class Renamed(importlib.machinery.SourceFileLoader):
    """Compiles a renamed source; nothing is cached."""

    def get_code(self, fullname):
        source = self.get_data(self.path).decode()
        return compile(
            re.sub(rf"\b{Renaming.name}\b", Renaming.name + "_new", source), self.path, "exec"
        )


def run() -> list[str]:
    """Train three rounds with each of two strategies; return the sha256 of their models."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg

    from fedagent import FedBuff, asynchronous, run_simulation
    from fedagent.simulation import Runtime, Scripted
    from fedagent.wire.records import digest

    client = ClientApp()

    @client.train()
    def _train(message, context):
        state = message.content["arrays"].to_torch_state_dict()
        state["w"] += torch.rand(3, 2)
        state["seen"] += 1
        metrics = MetricRecord({"num-examples": 1 + context.node_id % 3, "loss": 0.5})
        content = {"arrays": ArrayRecord(state), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    finals = []
    strategies = [
        FedBuff(buffer_size=2, fraction_evaluate=0.0),
        asynchronous(FedAvg(fraction_evaluate=0.0)),
    ]
    for strategy, workers in zip(strategies, (2, 0), strict=True):
        server = ServerApp()

        @server.main()
        def _main(grid, context, strategy=strategy):
            assert grid.run.run_id == context.run_id
            result = strategy.start(
                grid, ArrayRecord(ARRAYS), num_rounds=3, train_config=ConfigRecord({"lr": 0.1})
            )
            finals.append(digest(result.arrays))

        fleet = Scripted(num_nodes=4, times=(1.0, 1.3, 2.9, 7.1))
        run_simulation(server, client, fleet=fleet, seed=3, runtime=Runtime(workers))
    return finals


def tell(name: str) -> None:
    Renaming.name = name
    if name:
        sys.meta_path.insert(0, Renaming)
    said: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("flwr.fedagent").addHandler(handler)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    logging.getLogger("flwr.fedagent").setLevel(logging.WARNING)
    sha256, error = [], ""
    try:
        sha256 = run()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"name": name, "sha256": sha256, "error": error, "log": said}), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if not (pid := os.fork()):
            tell(name)
            os._exit(0)
        os.waitpid(pid, 0)
