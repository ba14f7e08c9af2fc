"""Attacks that need nothing but the attacker's own reply. Delta: the step that it trained."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent.client.attacks.attack import Attack
from fedagent.client.mods.memory import Arrays
from fedagent.errors import Interval

Scale = Annotated[float, Interval("(0, inf)")]


@dataclass(frozen=True)
class SignFlip(Attack):
    """Send -scale Delta: the way back, and further.

    Parameters
    ----------
    attackers : see `Attack`.
    scale : > 0; 1 is as long as an honest step.
    """

    _: KW_ONLY
    scale: Scale = 10.0

    def false_step(self, step: Arrays) -> Arrays:
        """Return -scale Delta."""
        return {name: -self.scale * delta for name, delta in step.items()}


@dataclass(frozen=True)
class Scaling(Attack):
    """Send scale Delta: one node's data counts as that of many.

    Parameters
    ----------
    attackers : see `Attack`.
    scale : > 0.
    """

    _: KW_ONLY
    scale: Scale = 10.0

    def false_step(self, step: Arrays) -> Arrays:
        """Return scale Delta."""
        return {name: self.scale * delta for name, delta in step.items()}


@dataclass(frozen=True)
class Noise(Attack):
    """Send a normal vector of about scale |Delta| instead of Delta.

    Parameters
    ----------
    attackers : see `Attack`.
    scale : its length over that of an honest step, > 0.
    """

    _: KW_ONLY
    scale: Scale = 10.0

    def false_step(self, step: Arrays) -> Arrays:
        """Return noise."""
        return noise(step, self.scale * norm_of(step))


@dataclass(frozen=True)
class FreeRider(Attack):
    """Send back what came, with a little noise that looks like work, and claim the examples.

    Parameters
    ----------
    attackers : see `Attack`.
    scale : length of the noise over that of an honest step, >= 0.
    """

    _: KW_ONLY
    scale: Annotated[float, Interval("[0, inf)")] = 0.1

    def false_step(self, step: Arrays) -> Arrays:
        """Return next to nothing."""
        return noise(step, self.scale * norm_of(step))


@dataclass(frozen=True)
class InflatedClaim(Attack):
    """Send -Delta, and claim so many times the examples.

    Parameters
    ----------
    attackers : see `Attack`.
    factor : claimed over true examples, > 0.
    """

    _: KW_ONLY
    factor: Scale = 1000.0

    def lie(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the flipped step of many."""
        reply = super().lie(message, context, call_next)
        if not reply.has_error():
            for metrics in reply.content.metric_records.values():
                for name in ("num-examples",) if "num-examples" in metrics else ():
                    metrics[name] = int(metrics[name] * self.factor)  # type: ignore[operator]
        return reply

    def false_step(self, step: Arrays) -> Arrays:
        """Return -Delta."""
        return {name: -delta for name, delta in step.items()}


@dataclass(frozen=True)
class MetricsFlood(Attack):
    """Send so many metrics that keeping them would fill the server's memory.

    Parameters
    ----------
    attackers : see `Attack`.
    count : numbers in the reply, >= 1; a gate takes 10,000 by default.
    """

    _: KW_ONLY
    count: Annotated[int, Interval("[1, inf)")] = 100_000

    def lie(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the honest reply, and the flood with it."""
        reply = call_next(message, context)
        if not reply.has_error():
            for metrics in reply.content.metric_records.values():
                metrics["flood"] = [0.0] * self.count
        return reply


def norm_of(step: Arrays) -> float:
    """Return the Euclidean length of all arrays together."""
    return float(np.sqrt(sum(np.sum(np.square(d, dtype=np.float64)) for d in step.values())))


def noise(step: Arrays, length: float) -> Arrays:
    """Return normal arrays of the shapes of `step`, together about so long."""
    size = sum(delta.size for delta in step.values())
    spread = length / max(size, 1) ** 0.5
    return {
        name: (spread * torch.randn(delta.shape, dtype=torch.float64).numpy()).astype(delta.dtype)
        for name, delta in step.items()
    }
