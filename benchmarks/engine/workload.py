"""What every engine is asked to do: the same models, data, steps and seeds.

80 nodes with 50 images of packaged MNIST each; a job is one epoch in batches of 10, five steps of
SGD; 20 clients make a version. `client_app` is an ordinary Flower app: it knows no fedagent.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import active_children, get_context

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.vision import data
from clients.vision.model import build
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.errors import require
from fedagent.tasks.task import Batch, Task

NODES, EXAMPLES, BATCH_SIZE, COHORT = 80, 50, 10, 20
LEARNING_RATE = 0.05
MODELS = ("linear", "mlp", "cnn")


@dataclass(frozen=True)
class Sample:
    """What one engine took for some clients, after warming up.

    Attributes
    ----------
    clients : jobs done, >= 1.
    wall_s : seconds that passed.
    cpu_s : seconds of work of the process and its children; None where it cannot be told.
    own_cpu_s : the process's own part of them: of an engine with workers the server's.
    """

    clients: int
    wall_s: float
    cpu_s: float | None = None
    own_cpu_s: float | None = None

    def __post_init__(self) -> None:
        require(self.clients >= 1, "A sample needs a client: ask an engine for a cohort at least.")


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._begun = _read()

    def sample(self, clients: int) -> Sample:
        """Return what was used up to now."""
        wall_s, own_s, workers_s = (
            now - begun for now, begun in zip(_read(), self._begun, strict=True)
        )
        return Sample(clients, wall_s, own_s + workers_s, own_s)


def _read() -> tuple[float, float, float]:
    """Return wall seconds, and CPU seconds of this process and of its workers that are alive."""
    workers_s = sum(_cpu_s_of(child.pid) for child in active_children())
    return time.perf_counter(), time.process_time(), workers_s


def _cpu_s_of(pid: int | None) -> float:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    except FileNotFoundError:  # it has just ended, or this is not Linux
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@lru_cache
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (4000, 1, 28, 28) images as floats and their labels."""
    return data.load().train.batch(slice(None))


def partition(node: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a node trains on: made when it is asked for beyond the first 80."""
    pixels, labels = images()
    if node < NODES:
        rows = slice(node * EXAMPLES, (node + 1) * EXAMPLES)
        return pixels[rows], labels[rows]
    drawn = torch.from_numpy(np.random.default_rng(node).integers(len(labels), size=EXAMPLES))
    return pixels[drawn], labels[drawn]


@lru_cache
def module(name: str) -> nn.Module:
    """Return this process's network of that name, which every job loads its start into."""
    torch.manual_seed(1)
    return build(name, channels=1, size=28, num_classes=10)


def train(model: nn.Module, node: int) -> None:
    """Do a node's five steps: the loop of every PyTorch tutorial."""
    pixels, labels = partition(node)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    model.train()
    order = torch.randperm(EXAMPLES)
    for chosen in order.split(BATCH_SIZE):
        optimizer.zero_grad()
        F.cross_entropy(model(pixels[chosen]), labels[chosen]).backward()
        optimizer.step()


client_app = ClientApp()


@client_app.train()
def train_on_node(message: Message, context: Context) -> Message:
    """Answer with the trained model."""
    model = module(str(message.content["config"]["model"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train(model, int(context.node_config["partition-id"]))
    return Message(
        RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"num-examples": EXAMPLES}),
            }
        ),
        reply_to=message,
    )


class Classify(Task):
    """The same work as a fedagent `Task`, which is what can be trained as one batch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return build(self.name, channels=1, size=28, num_classes=10)

    def num_examples(self, partition_id: int) -> int:
        """Return 50."""
        return EXAMPLES

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield batches, epoch after epoch."""
        assert partition_id is not None
        pixels, labels = partition(partition_id)
        while True:
            for chosen in torch.randperm(EXAMPLES).split(batch_size):
                yield pixels[chosen], labels[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy."""
        pixels, labels = batch
        return F.cross_entropy(model(pixels), labels)

    def measure(
        self, model: nn.Module, device: torch.device, partition_id: int | None
    ) -> dict[str, float]:
        """Refuse: nobody asks."""
        raise NotImplementedError("nothing is evaluated here")


def task_app(name: str, device: str = "cpu") -> ClientApp:
    """Return the ClientApp of `Classify`."""
    training = LocalTraining("sgd", LEARNING_RATE, EXAMPLES // BATCH_SIZE, BATCH_SIZE)
    return build_client_app(lambda run_config: ClientSpec(Classify(name), training, device))


def bare(name: str, clients: int) -> Sample:
    """Train client after client in a loop that knows no federation, and average every 20."""
    model = module(name)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    watch = Stopwatch()
    for _ in range(clients // COHORT):
        total = {k: torch.zeros_like(v) for k, v in start.items()}
        for node in torch.randperm(NODES)[:COHORT].tolist():
            model.load_state_dict(start)
            train(model, node)
            for key, value in model.state_dict().items():
                total[key].add_(value, alpha=1 / COHORT)
        start = total
    return watch.sample(clients // COHORT * COHORT)


def bare_side_by_side(name: str, clients: int) -> Sample:
    """Run the bare loop in two processes at once: all that two cores can do, one by one."""
    processes = get_context("fork")
    together, samples = processes.Barrier(2), processes.SimpleQueue()

    def work() -> None:
        torch.set_num_threads(1)
        bare(name, COHORT)
        together.wait()
        samples.put(bare(name, clients // 2))

    module(name), images()  # for both
    workers = [processes.Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    both = [samples.get() for _ in workers]
    for worker in workers:
        worker.join()
    return Sample(
        sum(s.clients for s in both), max(s.wall_s for s in both), sum(s.cpu_s or 0.0 for s in both)
    )
