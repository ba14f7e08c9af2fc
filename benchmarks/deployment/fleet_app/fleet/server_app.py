"""A ServerApp that notes when every message went out and when its reply was there."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

app = ServerApp()


class Stopwatch:
    """Times the messages of a grid, whoever sends them.

    Attributes
    ----------
    round_trips : (node id, seconds when sent, seconds when its reply was there) per message.
    failures : reasons of replies that were errors.
    """

    def __init__(self, grid: Grid) -> None:
        self._push, self._pull = grid.push_messages, grid.pull_messages
        self._sent: dict[str, tuple[int, float]] = {}
        self.round_trips: list[tuple[int, float, float]] = []
        self.failures: list[str] = []
        grid.push_messages, grid.pull_messages = self.push, self.pull

    def push(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and note the time."""
        messages = list(messages)
        nodes = [message.metadata.dst_node_id for message in messages]
        now_s = time.monotonic()
        ids = list(self._push(messages))
        self._sent |= {i: (node, now_s) for i, node in zip(ids, nodes, strict=True) if i}
        return ids

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Ask for replies and note when they are there."""
        replies = list(self._pull(message_ids))
        now_s = time.monotonic()
        for reply in replies:
            node, sent_s = self._sent.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                self.failures.append(str(reply.error))
            else:
                self.round_trips.append((node, sent_s, now_s))
        return replies


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Wait for the nodes, run the strategy, write the times."""
    config = context.run_config
    num_nodes, num_updates = int(config["num-nodes"]), int(config["num-updates"])
    while len(list(grid.get_node_ids())) < num_nodes:
        time.sleep(0.2)
    watch = Stopwatch(grid)
    strategy, rounds = _strategy(context, num_nodes, num_updates)
    strategy.start(grid=grid, initial_arrays=_initial(str(config["work"])), num_rounds=rounds)
    times = {"round_trips": watch.round_trips, "failures": watch.failures}
    Path(str(config["results"])).write_text(json.dumps(times))


def _strategy(context: Context, num_nodes: int, num_updates: int) -> tuple[Strategy, int]:
    if context.run_config["strategy"] == "fedavg":
        flowers = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=num_nodes)
        return flowers, num_updates // num_nodes
    from fedagent import Coding, FedBuff  # noqa: PLC0415  (Flower's set-up should not pay for it)
    from fedagent.journal import Checkpoints  # noqa: PLC0415

    folder = str(context.run_config["checkpoints"])
    up, _, way = str(context.run_config["codec"]).partition(" ")  # "int8", "int8 both ways"
    codec = Coding(up=up, down=up if way else "packed") if up else None
    ours = FedBuff(
        buffer_size=2,
        concurrency=num_nodes,
        prefetch=int(context.run_config["prefetch"]),
        fraction_evaluate=0.0,
        codec=codec,
        checkpoint=Checkpoints(Path(folder), "updates", 100) if folder else None,
    )
    return ours, num_updates // num_nodes


def _initial(work: str) -> ArrayRecord:
    if work == "cnn":
        from fleet.model import build  # noqa: PLC0415

        return ArrayRecord(build().state_dict())
    if work.startswith("resnet"):
        from torchvision.models import resnet18  # noqa: PLC0415

        state = resnet18().state_dict()
        if work == "resnet-small":
            state = {k: t.flatten()[: 1 + t.numel() // 64] for k, t in state.items()}
        return ArrayRecord(state)
    return ArrayRecord([np.zeros(1_000, np.float32)])
