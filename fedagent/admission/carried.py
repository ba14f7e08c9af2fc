"""Which carried arrays of a reply may be taken over; see `fedagent.arrays` for the policies."""

from collections.abc import Mapping

import numpy as np
import torch

from fedagent.admission.refusal import refuse_unless
from fedagent.arrays import NDArray
from fedagent.model import ModelSpec


def taken_over(
    carried: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    base: Mapping[str, torch.Tensor],
    max_count: int,
) -> dict[str, torch.Tensor]:
    """Return the arrays that the model may take over, and leave out those that it may not.

    An honest client may well let an integer fall or wrap around, or set a flag: that is no reason
    to refuse what it trained, and one reason not to take a maximum.

    Parameters
    ----------
    carried : what a client sent, by name.
    base : what was sent to it.
    max_count : what an array may have counted since then, element by element.

    Raises
    ------
    RefusedError
        If a floating array holds NaN or an infinity that was not sent.
    """
    policies = {s.name: s.carry for s in spec.arrays}
    taken = {}
    for name, value in carried.items():
        now, was = value.numpy(), base[name].numpy() if name in base else None
        if now.dtype.kind in "fc":
            is_sound = np.isfinite(now) if was is None else np.isfinite(now) | _equals(now, was)
            refuse_unless(bool(is_sound.all()), "non-finite", f"{name!r} holds NaN or infinity")
        policy = policies[name]
        if policy == "newest" or (policy == "count" and _counts(now, was, max_count)):
            taken[name] = value
    return taken


def explained(name: str, spec: ModelSpec) -> str:
    """Return why an array of a reply was not taken over, and which policy would."""
    (array,) = (s for s in spec.arrays if s.name == name)
    if array.carry == "keep":
        why, others = "is kept as it is", "'count' lets a flag be set, 'newest' takes it over"
    else:
        why, others = "did not just count up", "'newest' takes it over, 'keep' never changes it"
    return f"{array} {why}: the model keeps its own. Set carried={{{name!r}: ...}}: {others}."


def _equals(now: NDArray, was: NDArray) -> NDArray:
    equals: NDArray = (now == was) | (np.isnan(now) & np.isnan(was))
    return equals


def _counts(now: NDArray, was: NDArray | None, max_count: int) -> bool:
    if was is None:
        return True
    if was.dtype == bool:
        return bool((now >= was).all())
    # Modulo 2^64, where no difference of two integers overflows.
    steps = now.astype(np.uint64) - was.astype(np.uint64)
    return bool(((now >= was) & (steps <= max_count)).all())
