"""Control as a `Task`: every node has machines of one physics, and all learn one policy."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from clients.reinforcement.baseline import train_alone
from clients.reinforcement.data import Physics, Starts, load
from clients.reinforcement.environments import MACHINES, Floats, Machines
from clients.reinforcement.episodes import act, loss_of, returns
from clients.reinforcement.model import ActorCritic
from clients.reinforcement.pictures import returns_by_physics
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Task, check_partition_id, over_nodes


@dataclass(frozen=True, eq=False)
class ReinforcementTask(Task):
    """Learn to act with advantage actor-critic, on machines that differ from node to node.

    A batch says where machines begin; the loss lets the model act from there (A2C, Mnih et al.,
    arXiv 1602.01783) and learns from what that earned. It is judged by whole episodes on physics
    that no node has.

    Parameters
    ----------
    environment : "cartpole" (its metric is the mean return, at most 500) or "acrobot" (the mean
        number of steps until its tip is up, at most 500: the return without its minus).
    num_partitions : nodes, each with a physics of its own.
    hidden : width of the layers of actor and critic, >= 1.
    num_steps : steps of each machine that a gradient is made from, >= 1.
    discount : gamma of later rewards, in (0, 1].
    smoothing : lambda of the advantages, in [0, 1]; see `clients.reinforcement.episodes`.
    entropy : weight of the policy's entropy, which keeps it trying, >= 0.
    exploring : share of machines that begin anywhere, and not where gymnasium's do, in [0, 1].
    num_validation : physics that a node validates with, not its own, >= 1.
    num_test : physics of the test, one episode each, >= 1.
    baseline_nodes, baseline_steps : agents that the number to beat is the mean of, each trained on
        one node alone, and their gradient steps; >= 1.
    seed : of all physics, and of where tests begin.
    """

    baseline_name: ClassVar[str] = "agents alone"

    environment: str = "cartpole"
    num_partitions: int = 30
    hidden: int = 64
    num_steps: int = 32
    discount: float = 0.99
    smoothing: float = 0.95
    entropy: float = 0.01
    exploring: float = 0.25
    num_validation: int = 8
    num_test: int = 200
    baseline_nodes: int = 3
    baseline_steps: int = 1920
    seed: int = 1

    def __post_init__(self) -> None:
        one_of("ReinforcementTask: environment", self.environment, MACHINES)
        for name in ("num_partitions", "hidden", "num_steps", "num_validation", "num_test"):
            value = getattr(self, name)
            require(value >= 1, f"ReinforcementTask: {name}={value} must be at least 1.")
        for name in ("baseline_nodes", "baseline_steps"):
            value = getattr(self, name)
            require(value >= 1, f"ReinforcementTask: {name}={value} must be at least 1.")
        for name, value, holds, must in (
            ("discount", self.discount, 0 < self.discount <= 1, "lie in (0, 1]"),
            ("smoothing", self.smoothing, 0 <= self.smoothing <= 1, "lie in [0, 1]"),
            ("exploring", self.exploring, 0 <= self.exploring <= 1, "lie in [0, 1]"),
            ("entropy", self.entropy, self.entropy >= 0, "not be negative"),
        ):
            require(holds, f"ReinforcementTask: {name}={value} must {must}.")

    @property
    def metric(self) -> Metric:  # type: ignore[override]
        """The mean return, or for acrobot the steps it takes."""
        return Metric("return") if self.environment == "cartpole" else Metric("steps", "min")

    @property
    def machines(self) -> type[Machines]:
        """What is simulated."""
        return MACHINES[self.environment]

    @cached_property
    def physics(self) -> Physics:
        """The physics of nodes, validation and test, drawn on first use."""
        return load(
            self.environment, self.num_partitions, self.num_validation, self.num_test, self.seed
        )

    def build_model(self) -> nn.Module:
        """Return a fresh actor and critic."""
        return ActorCritic(self.machines.scale, self.machines.num_actions, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return 1: all nodes weigh the same, for each can simulate as much as any other."""
        check_partition_id(partition_id, len(self.physics.nodes))
        return 1

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Starts]:
        """Yield where `batch_size` machines begin; ``None`` draws each one's physics anew."""
        nodes = self.physics.nodes
        if partition_id is not None:
            check_partition_id(partition_id, len(nodes))
            nodes = nodes[[partition_id]]
        usual = torch.full((len(self.machines.explored),), self.machines.usual)
        explored = torch.tensor(self.machines.explored)
        while True:
            explores = torch.rand(batch_size, 1) < self.exploring
            bounds = torch.where(explores, explored, usual)
            states = (2 * torch.rand(bounds.shape) - 1) * bounds
            yield Starts(nodes[torch.randint(len(nodes), (batch_size,))], states)

    def loss(self, model: nn.Module, batch: Starts) -> torch.Tensor:
        """Act for `num_steps` steps by the model's policy; return the loss of actor and critic.

        The actions are drawn by the global torch seed. This is no function that can be recorded:
        nodes are trained one by one.
        """
        assert isinstance(model, ActorCritic)
        machines = self.machines(*(tensor.cpu().numpy() for tensor in batch))
        steps = act(model, machines, self.num_steps, batch.states.device)
        return loss_of(model, steps, self.discount, self.smoothing, self.entropy)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return ``return``, ``steps`` and ``return-worst-tenth`` of one episode per physics.

        The likeliest action is taken. A node validates with physics that neither it nor another
        node trains on, nor the test has; ``return-worst-tenth`` is the mean of the lowest tenth.
        """
        return _summary(returns(model, self._begun(partition_id), device))

    def _begun(self, partition_id: int | None) -> Machines:
        """Return machines to be judged by; they begin where gymnasium's do, by a seed."""
        if partition_id is None:
            factors, stream = self.physics.test, 0
        else:
            factors, stream = self.physics.validation[partition_id], 1 + partition_id
        rng = np.random.default_rng((self.seed, 3, stream))
        usual = self.machines.usual
        states = rng.uniform(-usual, usual, (len(factors), len(self.machines.explored)))
        return self.machines(factors.numpy(), states)

    def baseline(self) -> Metrics:
        """Return the mean of agents that each know one node, on the test physics.

        They are trained with the steps that pooled data gets, on the nodes 0, 1, ...
        """
        agents = range(min(self.baseline_nodes, self.num_partitions))
        found = []
        with torch.random.fork_rng(devices=[]):
            for node in agents:
                torch.manual_seed(self.seed)
                model = self.build_model()
                train_alone(self, model, node, self.baseline_steps)
                found.append(self.evaluate(model, torch.device("cpu")))
        mean = over_nodes(found, self.metric, "equal")
        return {name: mean[name] for name in found[0]} | {"num-examples": found[0]["num-examples"]}

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return curves: the return while one quantity changes; the others are gymnasium's."""
        return Showcase(figures={"returns": returns_by_physics(self.machines, model, device)})


def _summary(earned: Floats) -> Metrics:
    lowest = np.sort(earned)[: max(1, len(earned) // 10)]
    return {
        "return": float(earned.mean()),
        "return-worst-tenth": float(lowest.mean()),
        "steps": float(np.abs(earned).mean()),
        "num-examples": float(len(earned)),
    }
