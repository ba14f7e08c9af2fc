"""A real run whose nodes answer at once: what a reply costs the server, in time and in memory.

50 nodes are at work. Most of them still have version 0; the others answer in turn, so that several
versions are in flight. Every reply carries the same bytes, which are also the initial model's: one
model, the transport's, that is not counted. The run has a process of its own, whose highest
resident memory Linux keeps (``VmHWM``).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedagent import AsyncStrategy, FedAsync, FedBuff
from fedagent._flower import DRIVER_NODE_ID, Run, empty_run, identify_process, set_message_id
from fedagent.stopping import MaxUpdates
from fedagent.wire.records import to_record

IN_FLIGHT = 50
QUICK = 5  # nodes that answer
REPLIES = 48
REPLIES_IF_LARGE = 12  # at 100 M parameters

PATHS: dict[str, Callable[..., AsyncStrategy]] = {
    "FedAsync": FedAsync,
    "FedBuff": lambda **options: FedBuff(buffer_size=4, **options),
}


@dataclass(frozen=True)
class Path:
    """What a run showed.

    Attributes
    ----------
    reply_ms : from one reply to the next; the mean, versions included.
    reply_axpys : the same, in ``x.add_(y, alpha=a)`` of the model's size.
    peak_models : the most memory there was beyond what an empty run of the same process takes and
        the reply's bytes, in models.
    versions : the most distinct versions that were in flight.
    """

    reply_ms: float
    reply_axpys: float
    peak_models: float
    versions: int


def layers(parameters: int) -> dict[str, np.ndarray]:
    """Return a model of eight layers: weights, and biases of 1000."""
    rows = parameters // 8000
    arrays = {}
    for layer in range(8):
        arrays[f"{layer}.weight"] = np.full((rows - 1, 1000), 0.5, np.float32)
        arrays[f"{layer}.bias"] = np.full(1000, 0.5, np.float32)
    return arrays


class Echo(Grid):
    """Whenever it is asked, it answers the job fifth from the youngest, with the same model."""

    def __init__(self, arrays: ArrayRecord) -> None:
        self.arrays = arrays
        self._in_flight: dict[str, Message] = {}
        self._count = 0
        self.versions = 0
        self.pulled_s: list[float] = []

    def set_run(self, run: Run) -> None:
        """Ignore the run."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return empty_run(0)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return range(2, 2 + IN_FLIGHT)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages in flight."""
        ids = []
        for message in messages:
            self._count += 1
            ids.append(str(self._count))
            set_message_id(message, ids[-1])
            self._in_flight[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return one reply."""
        self.pulled_s.append(time.perf_counter())
        sent = {id(m.content["arrays"]["0.weight"].data) for m in self._in_flight.values()}
        self.versions = max(self.versions, len(sent))
        chosen = list(self._in_flight)[-QUICK:][0]
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": self.arrays, "metrics": metrics})
        return [Message(content, reply_to=self._in_flight.pop(chosen))]

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Raise: nobody needs it."""
        raise NotImplementedError

    send_and_receive = create_message  # type: ignore[assignment]


def train(parameters: int, rule: str) -> Echo:
    """Take in replies of a model; return the grid they came from."""
    replies = REPLIES if parameters < 10**8 else REPLIES_IF_LARGE
    strategy = PATHS[rule](
        concurrency=IN_FLIGHT, fraction_evaluate=0.0, stopping=[MaxUpdates(replies)]
    )
    grid = Echo(to_record(layers(parameters)))
    strategy.start(grid, grid.arrays, num_rounds=replies)
    return grid


def _memory_bytes(field: str) -> int:
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(field))


def main() -> None:
    """Measure one run in this process."""
    parameters, rule = int(sys.argv[1]), sys.argv[2]
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    train(16_000, rule)  # imports, caches
    before = _memory_bytes("VmHWM")
    grid = train(parameters, rule)
    peak_bytes = _memory_bytes("VmHWM") - before
    reply_s = (grid.pulled_s[-1] - grid.pulled_s[1]) / (len(grid.pulled_s) - 2)
    versions = grid.versions
    del grid
    x, y = torch.zeros(parameters), torch.ones(parameters)
    axpy_s = min(_seconds(lambda: x.add_(y, alpha=0.5)) for _ in range(5))
    path = Path(1e3 * reply_s, reply_s / axpy_s, peak_bytes / (4 * parameters) - 1, versions)
    print(json.dumps(vars(path)))


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def measure_path(parameters: int, rule: str) -> Path:
    """Measure one run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.aggregation.replies", str(parameters), rule]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Path(**json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
