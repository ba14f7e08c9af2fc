"""What both ends compute of the members' keys: who agrees on what, and which sign a mask has."""

from collections.abc import Iterable

import numpy as np

from fedagent.arrays import NDArray
from fedagent.privacy.secure.masks import KEY_BYTES, agreed, derived, mask


class Pairs:
    """The pairs of one sum's members.

    What pairs agree on is bound to the keys of all members, so those who were told of different
    members have no mask in common.

    Parameters
    ----------
    keys : (K, 64) uint8; a row is a member's public keys, for masks and for shares.
    """

    def __init__(self, keys: NDArray) -> None:
        self._keys = keys
        self._members = derived(keys.tobytes(), b"members")

    def mask_key(self, place: int) -> bytes:
        """Return a member's public key for masks."""
        return self._keys[place, :KEY_BYTES].tobytes()

    def seal_key(self, place: int) -> bytes:
        """Return a member's public key for shares."""
        return self._keys[place, KEY_BYTES:].tobytes()

    def sealing(self, seed: bytes, other: int, sender: int, receiver: int) -> bytes:
        """Return what seals the shares from one member to another; `seed` is of one of the two."""
        purpose = b"shares %d %d " % (sender, receiver) + self._members
        return agreed(seed, self.seal_key(other), purpose)

    def add_masks(
        self, words: NDArray, seed: bytes, place: int, others: Iterable[int], sign: int = 1
    ) -> None:
        """Add to (P,) words what a member's seed masks them with towards some others.

        Of two members the first adds what the second takes off; `sign` -1 does the contrary.
        """
        for other in others:
            key = agreed(seed, self.mask_key(other), b"mask " + self._members)
            _add(words, mask(key, len(words)), sign if place < other else -sign)


def add_self_mask(words: NDArray, seed: bytes, sign: int = 1) -> None:
    """Add to (P,) words the mask that a member has for itself; `sign` -1 takes it off."""
    _add(words, mask(derived(seed, b"self mask"), len(words)), sign)


def _add(words: NDArray, masking: NDArray, sign: int) -> None:
    (np.add if sign > 0 else np.subtract)(words, masking, out=words)
