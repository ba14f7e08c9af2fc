"""Who attacks, and what all attacks share: a Flower mod that changes the replies of some nodes.

attackers = Attackers(num_nodes=100, fraction=0.2, seed=1)
ClientApp(mods=[SignFlip(attackers, scale=10.0)])

Attackers know the protocol: a lie is a reply that the gate lets through, in shape, dtype and token.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Annotated, Literal, Protocol

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent.client.mods.differences import changes_of
from fedagent.client.mods.memory import Arrays
from fedagent.client.request import model_in, partition_of
from fedagent.client.spec import ClientSpec
from fedagent.errors import Interval, check_fields, require
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record


class Speeds(Protocol):
    """Something that knows how fast its nodes are, such as a `fedagent.simulation.Fleet`."""

    def all_seconds_per_step(self) -> Sequence[float]:
        """Return every node's seconds per local step."""


@dataclass(frozen=True, kw_only=True)
class Attackers:
    """Which nodes lie: the same in every process, from the numbers here alone.

    Parameters
    ----------
    num_nodes : nodes there are; they are told apart by their partition ids, which begin at 0.
    fraction : share of them that attacks, in [0, 1], rounded to whole nodes.
    who : "random" by `seed`, the "fastest" or the "slowest" of `fleet`.
    nodes : partition ids of the attackers, instead of `fraction` and `who`: one class of devices,
        say, or who holds one class of examples.
    fleet : how fast nodes are; wanted for "fastest" and "slowest".
    seed : of the random choice, >= 0.

    Raises
    ------
    ConfigurationError
        If a number cannot work, or nobody knows who is fast.
    """

    num_nodes: Annotated[int, Interval("[1, inf)")]
    fraction: Annotated[float, Interval("[0, 1]")] = 0.2
    who: Literal["random", "fastest", "slowest"] = "random"
    nodes: Sequence[int] | None = None
    fleet: Speeds | None = None
    seed: Annotated[int, Interval("[0, inf)")] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        wrong = [node for node in self.nodes or () if not 0 <= node < self.num_nodes]
        require(
            not wrong,
            f"Attackers: nodes={wrong[:5]} are no partition ids of num_nodes={self.num_nodes}.",
        )
        require(
            self.who == "random" or self.nodes is not None or self.fleet is not None,
            f"Attackers: who={self.who} needs to know how fast nodes are; pass fleet=.",
        )

    @cached_property
    def partitions(self) -> frozenset[int]:
        """The partition ids of those who lie."""
        if self.nodes is not None:
            return frozenset(self.nodes)
        count = round(self.fraction * self.num_nodes)
        if self.who == "random":
            order = np.random.default_rng(self.seed).permutation(self.num_nodes)
        else:
            assert self.fleet is not None, "checked when this was built"
            order = np.argsort(self.fleet.all_seconds_per_step(), kind="stable")
            order = order if self.who == "fastest" else order[::-1]
        return frozenset(int(node) for node in order[:count])


@dataclass(frozen=True)
class Attack(ABC):
    """A Flower mod: attackers answer training requests with `lie`, all else stays as it is.

    It belongs behind mods that change how a reply travels: last in a list of mods. Chance comes
    from the global torch generator, which a simulation seeds for every job.

    Parameters
    ----------
    attackers : who lies.
    """

    attackers: Attackers
    _: KW_ONLY

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer as an attacker or as an honest node does."""
        is_asked = message.metadata.message_type.split(".")[0] == Kind.TRAIN
        if not is_asked or partition_of(context) not in self.attackers.partitions:
            return call_next(message, context)
        return self.lie(message, context, call_next)

    def lie(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the reply of an attacker: the honest one with `false_step` in its arrays."""
        dispatched = from_record(model_in(message)[1])
        reply = call_next(message, context)
        return reply if reply.has_error() else self.with_step(reply, dispatched)

    def with_step(self, reply: Message, dispatched: Arrays) -> Message:
        """Put dispatched + `false_step` into a reply, where that is a floating array."""
        name, record = model_in(reply)
        trained = from_record(record)
        reply.content[name] = to_record(
            trained | moved_by(dispatched, self.false_step(changes_of(dispatched, trained)))
        )
        return reply

    def false_step(self, step: Arrays) -> Arrays:
        """Return what the attacker says that training changed, by array; `step` is the truth."""
        return step

    def on(self, client: ClientSpec) -> ClientSpec:
        """Return what a client process needs for this attack."""
        return replace(client, mods=[*client.mods, self])


def moved_by(dispatched: Arrays, steps: Arrays) -> Arrays:
    """Return dispatched + steps, in the dispatched dtypes."""
    return {
        name: np.asarray(dispatched[name] + step, dispatched[name].dtype)
        for name, step in steps.items()
    }
