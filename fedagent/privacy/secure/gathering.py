"""The proxy's part in a secure sum: it relays, adds up, and takes the masks off the sum only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedagent.arrays import ArraySpec, NDArray
from fedagent.privacy.secure.fixed_point import FixedPoint
from fedagent.privacy.secure.masks import SEALED_BYTES, commitment, joined, public_key
from fedagent.privacy.secure.pairs import Pairs, add_self_mask
from fedagent.privacy.secure.stages import Question, Stage, answer_of

TOO_FEW = "too-few-members"
"""Fewer than t members were left in a stage."""
BAD_SHARES = "bad-shares"
"""What members revealed is not what they, or those that vanished, had shared."""


@dataclass(frozen=True, slots=True, eq=False)
class SumEnd:
    """How a secure sum ended.

    Attributes
    ----------
    members : node ids of all.
    survivors : of those whose updates are in the sum.
    total : (P,) float64 sum of the survivors' updates; None if it was given up.
    reason : why it was; else empty.
    """

    members: tuple[int, ...]
    survivors: tuple[int, ...] = ()
    total: NDArray | None = None
    reason: str = ""


class Gathering:
    """One secure sum, stage by stage, from the members' keys to its outcome.

    Parameters
    ----------
    keys : by node id, the 64 bytes of public keys that each member has announced.
    threshold : t, members that must answer in every stage.
    limit : R of the fixed-point numbers; K is the number of members.
    num_params : P.

    Attributes
    ----------
    stage : what is asked for now.
    awaited : ids of the nodes that have not answered in this stage, nor are gone.
    outcome : None before the end.
    """

    def __init__(
        self, keys: Mapping[int, bytes], threshold: int, limit: float, num_params: int
    ) -> None:
        self._node_ids = tuple(keys)
        self._places = {node_id: place for place, node_id in enumerate(self._node_ids)}
        self._keys = np.stack([np.frombuffer(key, np.uint8) for key in keys.values()])
        self._threshold, self._limit = threshold, limit
        self._total = np.zeros(num_params, np.uint32)
        number = len(self._node_ids)
        self._sealed = np.zeros((number, number, SEALED_BYTES), np.uint8)
        self._commitments: dict[int, bytes] = {}
        self._revealed: dict[int, dict[int, bytes]] = {place: {} for place in range(number)}
        self._members = self._sharers = tuple(range(number))
        self._answered: list[int] = []
        self.stage = Stage.SHARE
        self.outcome: SumEnd | None = None
        self.awaited = dict.fromkeys(self._node_ids)

    @property
    def expected(self) -> list[ArraySpec]:
        """The arrays of an answer in this stage."""
        return answer_of(self.stage, len(self._node_ids), len(self._total))

    def question(self, node_id: int) -> Question:
        """Return what a member is asked in this stage."""
        arrays = {}
        if self.stage is Stage.SHARE:
            arrays = {"keys": self._keys}
        elif self.stage is Stage.MASK:
            arrays = {"sealed": np.ascontiguousarray(self._sealed[:, self._places[node_id]])}
        return Question(self.stage, self._threshold, self._limit, self._members, arrays)

    def answer(self, node_id: int, arrays: Mapping[str, NDArray]) -> None:
        """Take in an awaited member's answer, of the form `expected`."""
        del self.awaited[node_id]
        place = self._places[node_id]
        self._answered.append(place)
        if self.stage is Stage.SHARE:
            self._sealed[place] = arrays["sealed"]
            self._commitments[place] = arrays["commitment"].tobytes()
        elif self.stage is Stage.MASK:
            self._total += arrays["masked"]
        else:
            for other in self._sharers:
                if arrays["has_share"][other]:
                    self._revealed[other][place] = arrays["shares"][other].tobytes()

    def lose(self, node_id: int) -> None:
        """Go on without an awaited member."""
        del self.awaited[node_id]

    def advance(self) -> None:
        """End a stage in which nobody is awaited: the next begins, or the outcome is there."""
        assert not self.awaited, "advance() before everybody has answered, or is gone"
        members, self._answered = tuple(sorted(self._answered)), []
        if len(members) < self._threshold:
            self._end(TOO_FEW)
        elif self.stage is Stage.REVEAL:
            self._end("" if self._unmask() else BAD_SHARES)
        else:
            self._sharers = members if self.stage is Stage.SHARE else self._sharers
            self._members, self.stage = members, Stage(self.stage + 1)
            self.awaited = dict.fromkeys(self._node_ids[place] for place in members)

    def _end(self, reason: str) -> None:
        if reason:
            self.outcome = SumEnd(self._node_ids, reason=reason)
            return
        survivors = tuple(self._node_ids[place] for place in self._members)
        total = FixedPoint(self._limit, len(self._node_ids)).decode(self._total)
        self.outcome = SumEnd(self._node_ids, survivors, total)

    def _unmask(self) -> bool:
        """Take the masks off the sum; return whether the shares allow it.

        That is the survivors' own masks, and those of survivors towards members that vanished.
        """
        pairs, survivors = Pairs(self._keys), self._members
        for place in self._sharers:
            survives = place in survivors
            told = self._commitments[place] if survives else pairs.mask_key(place)
            seed = self._seed(place, commitment if survives else public_key, told)
            if seed is None:
                return False
            if survives:
                add_self_mask(self._total, seed, -1)
            else:  # as if it had come with an update of zeros
                pairs.add_masks(self._total, seed, place, survivors)
        return True

    def _seed(self, place: int, tell: Callable[[bytes], bytes], told: bytes) -> bytes | None:
        """Return a member's seed, which tells what it told; of too many shares one may be wrong."""
        shares = self._revealed[place]
        for without in (None, *shares):
            chosen = [p for p in shares if p != without][: self._threshold]
            if len(chosen) == self._threshold:
                seed = joined({p: shares[p] for p in chosen})
                if tell(seed) == told:
                    return seed
        return None
