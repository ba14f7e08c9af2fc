"""Traffic signals as a `Task`: an intersection learns from what happens before its own lights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import nn

from clients.traffic_signals.control import Decisions, ModelController
from clients.traffic_signals.data import SCENARIOS, load
from clients.traffic_signals.model import PhaseScorer
from clients.traffic_signals.simulation import GREEN_S, YELLOW_S, Controller, drive, longest_queue
from fedagent.errors import imported, one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Task, check_partition_id, over_nodes

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure

_TEST, _VALIDATION, _TRAINING = 1, 1001, 10_000
"""First seeds of the drivers in each part; no part reaches the next."""


class Simulations(NamedTuple):
    """What is simulated to learn from, a batch of B."""

    signals: torch.Tensor
    """(B,) int64, whose decisions are learned from"""
    seeds: torch.Tensor
    """(B,) int64, of the drivers"""


@dataclass(frozen=True, eq=False)
class TrafficSignalsTask(Task):
    """Let vehicles arrive soon, by policy gradient.

    A node simulates its city under the dispatched policy at all signals and learns from the
    decisions of its own: minus the vehicles that stand there, discounted.

    Parameters
    ----------
    scenarios : cities, see `clients.traffic_signals.data.SCENARIOS`; their signals are the nodes.
    num_partitions : nodes; the first that many of these signals learn, all obey the policy.
    hidden : width of the networks, >= 1.
    training_s : seconds of the hour that are simulated for one gradient, >= 24: time for the three
        decisions that a gradient needs at least.
    discount : of the queue at the next decision, in [0, 1).
    entropy : weight of the policy's entropy, >= 0.
    num_seeds : drivers' seeds of the test, each an hour of every scenario, 1 to 1000.
    test_s : seconds of that hour; None for all of it.
    """

    metric: ClassVar[Metric] = Metric("trip-time", "min")
    baseline_name: ClassVar[str] = "fixed programmes"

    scenarios: Sequence[str] = ("cologne8", "ingolstadt7")
    num_partitions: int = 15
    hidden: int = 32
    training_s: float = 600.0
    discount: float = 0.9
    entropy: float = 0.01
    num_seeds: int = 1
    test_s: float | None = None

    def __post_init__(self) -> None:
        require(len(self.scenarios) >= 1, "TrafficSignalsTask: scenarios must name one.")
        for scenario in self.scenarios:
            one_of("TrafficSignalsTask: scenarios", scenario, SCENARIOS)
        shortest_s = 3 * (GREEN_S + YELLOW_S)
        for name, value, holds, must in (
            ("hidden", self.hidden, self.hidden >= 1, "be at least 1"),
            (
                "training_s",
                self.training_s,
                self.training_s >= shortest_s,
                f"be at least {shortest_s}",
            ),
            ("discount", self.discount, 0 <= self.discount < 1, "lie in [0, 1)"),
            ("entropy", self.entropy, self.entropy >= 0, "not be negative"),
            ("num_seeds", self.num_seeds, 1 <= self.num_seeds <= 1000, "lie in [1, 1000]"),
            ("test_s", self.test_s, self.test_s is None or self.test_s > 0, "be positive"),
        ):
            require(holds, f"TrafficSignalsTask: {name}={value} must {must}.")

    @cached_property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """Each node's scenario, and the number of its signal there."""
        found = [(name, k) for name in self.scenarios for k in range(len(load(name)))]
        require(
            1 <= self.num_partitions <= len(found),
            f"TrafficSignalsTask: {self.num_partitions} nodes for the {len(found)} signals of "
            f"{', '.join(self.scenarios)}; set fleet.num_nodes={len(found)} or less.",
        )
        return tuple(found[: self.num_partitions])

    def build_model(self) -> nn.Module:
        """Return a policy that is a rule until it learns."""
        return PhaseScorer(self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return 1: all intersections weigh the same."""
        check_partition_id(partition_id, len(self.nodes))
        return 1

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Simulations]:
        """Yield `batch_size` seeds of drivers; ``None`` draws an intersection for each."""
        own = range(len(self.nodes))
        if partition_id is not None:
            check_partition_id(partition_id, len(own))
            own = range(partition_id, partition_id + 1)
        while True:
            signals = torch.randint(own.start, own.stop, (batch_size,))
            yield Simulations(signals, torch.randint(_TRAINING, 2**31 - 1, (batch_size,)))

    def loss(self, model: nn.Module, batch: Simulations) -> torch.Tensor:
        """Simulate with phases drawn from the policy; return the loss of actor and critic."""
        assert isinstance(model, PhaseScorer)
        losses = []
        for node, seed in zip(*(t.tolist() for t in batch), strict=True):
            scenario, signal = self.nodes[node]
            controller = ModelController(model, batch.seeds.device, signal)
            drive(scenario, seed, controller, self.training_s)
            losses.append(self._loss_of(model, controller.decisions()))
        return torch.stack(losses).mean()

    def _loss_of(self, model: PhaseScorer, done: Decisions) -> torch.Tensor:
        features, exists = done.features[:-1], done.exists[:-1]
        queues = done.queues / 10
        later, follows = queues[-1], []  # as if it stayed as it is at the end
        for queue in reversed(queues[1:].unbind()):
            later = (1 - self.discount) * queue + self.discount * later
            follows.append(-later)
        earned = torch.stack(follows[::-1])
        # Nearly all of what will stand there stands there already, whatever the phase.
        values = model.value(features, exists) - queues[:-1]
        gain = earned - values.detach()
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        logs = model(features, exists).log_softmax(-1).masked_fill(~exists, 0.0)
        chosen = logs.gather(1, done.phases[:-1].unsqueeze(1)).squeeze(1)
        doubt = -(logs.exp() * logs).sum(1)  # 0 where there is no phase: its log is 0
        error = (values - earned).square()
        loss: torch.Tensor = (0.5 * error - chosen * gain - self.entropy * doubt).mean()
        return loss

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return `drive`'s metrics, means over the scenarios, and each scenario's trip time.

        The likeliest phase is taken. A node validates on its own city with other drivers.
        """
        controller = ModelController(model, device, None)
        if partition_id is None:
            return self.under(controller)
        return self.hours_of(self.nodes[partition_id][0], controller, _VALIDATION)

    def validate(self, model: nn.Module, device: torch.device) -> Metrics:
        """Return means over the scenarios: what happens in a city is the same to all its nodes."""
        return self.under(ModelController(model, device, None), _VALIDATION)

    def hours_of(self, scenario: str, controller: Controller | None, first_seed: int) -> Metrics:
        """Return means over `num_seeds` hours of a scenario."""
        seeds = range(first_seed, first_seed + self.num_seeds)
        hours = [drive(scenario, seed, controller, self.test_s) for seed in seeds]
        return over_nodes(hours, self.metric)

    def under(self, controller: Controller | None, first_seed: int = _TEST) -> Metrics:
        """Return the test's metrics under any controller; None leaves the fixed programmes."""
        found = {name: self.hours_of(name, controller, first_seed) for name in self.scenarios}
        return over_nodes(list(found.values()), self.metric, "equal") | {
            f"trip-time-{name}": metrics["trip-time"] for name, metrics in found.items()
        }

    def baseline(self) -> Metrics:
        """Return the metrics of the fixed programmes."""
        return self.under(None)

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return bars: the trip times of fixed programmes, the longest queue, and the model."""
        controllers = {
            "fixed programme": None,
            "longest queue": longest_queue,
            "learned": ModelController(model, device, None),
        }
        found = {name: self.under(controller) for name, controller in controllers.items()}
        return Showcase(figures={"trip-times": _bars(found, self.scenarios)})


def _bars(found: dict[str, Metrics], scenarios: Sequence[str]) -> Figure:
    figure: Figure = imported("matplotlib.figure", "fedagent[plots]", "The picture").Figure()
    axes = figure.subplots()
    width = 0.8 / len(found)
    for number, (name, metrics) in enumerate(found.items()):
        places = [place + number * width for place in range(len(scenarios))]
        axes.bar(places, [metrics[f"trip-time-{s}"] for s in scenarios], width, label=name)
    axes.set_xticks([place + width for place in range(len(scenarios))], scenarios)
    axes.set_ylabel("trip time of all vehicles (s)")
    axes.legend()
    return figure
