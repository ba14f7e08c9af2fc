"""What the proxy asks of a node for one secure sum, and what an answer looks like."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from fedagent.arrays import ArraySpec, NDArray
from fedagent.privacy.secure.masks import KEY_BYTES, SEALED_BYTES, SEED_BYTES

SMALLEST = 3
"""Members of a sum: of two, each would learn the other's update from it."""


class Stage(IntEnum):
    """What a node is asked for, in this order, and each once."""

    KEEP = 1
    """Train, keep the update and answer with two public keys: with a job."""
    SHARE = 2
    """Here are the members' keys: answer with sealed shares of your seeds for each of them."""
    MASK = 3
    """Here are the shares for you: answer with your update under the masks of those who shared."""
    REVEAL = 4
    """These masked updates have come: answer with shares of what takes the masks off the sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What one member is asked in a stage after the first.

    Attributes
    ----------
    stage : which.
    threshold : t, members that must be left in every stage.
    limit : R, the largest change of a parameter that counts in full.
    members : places of those who have done what the stage before asked for.
    arrays : what is relayed, by name.
    """

    stage: Stage
    threshold: int
    limit: float
    members: tuple[int, ...]
    arrays: Mapping[str, NDArray]


def answer_of(stage: Stage, num_members: int, num_params: int) -> list[ArraySpec]:
    """Return the arrays that an honest answer consists of.

    Parameters
    ----------
    num_members : K of the sum; any for the first stage.
    num_params : P of the model.
    """
    if stage is Stage.KEEP:
        return [ArraySpec("keys", (2 * KEY_BYTES,), "uint8")]
    if stage is Stage.SHARE:
        return [
            ArraySpec("sealed", (num_members, SEALED_BYTES), "uint8"),
            ArraySpec("commitment", (KEY_BYTES,), "uint8"),
        ]
    if stage is Stage.MASK:
        return [ArraySpec("masked", (num_params,), "uint32")]
    return [
        ArraySpec("shares", (num_members, SEED_BYTES), "uint8"),
        ArraySpec("has_share", (num_members,), "uint8"),
    ]
