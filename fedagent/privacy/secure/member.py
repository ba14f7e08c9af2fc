"""A node's part in a secure sum: it keeps its update until a sum hides it.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017,
Figure 4, for curious but honest servers: a mask for each pair of members, which cancel in the sum,
and one of its own, which is taken off it. A node shares the seeds of both with the other members.
Of one that has vanished they tell the first, of all others the second: never both of one node,
because its update would be bare.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from fedagent.arrays import NDArray
from fedagent.privacy.secure.fixed_point import FixedPoint
from fedagent.privacy.secure.masks import (
    SEALED_BYTES,
    SEED_BYTES,
    commitment,
    fresh_seed,
    public_key,
    seal,
    split,
    unsealed,
)
from fedagent.privacy.secure.pairs import Pairs, add_self_mask
from fedagent.privacy.secure.stages import SMALLEST, Question, Stage


class UnsafeQuestionError(ValueError):
    """A node does not answer what could tell its update, or what makes no sense."""


_nothing = partial(np.empty, 0, np.uint8)


@dataclass(eq=False)
class Member:
    """What a node remembers from its job to the end of the sum that its update is in.

    Attributes
    ----------
    change : (P,) its update, floating; empty once it has been given away.
    mask_seed, seal_seed, self_seed : of its keys for masks and for shares, and of its own mask.
    stage : the last that it has answered.
    threshold : t, which must stay what it was.
    keys : (K, 64) of all members.
    shares : (K, 2, 16) what it has of each member's mask seed and self seed.
    has_share : (K,) of whom it has any.
    sharers : (K,) who is in the masks.
    """

    change: NDArray
    mask_seed: bytes = field(default_factory=fresh_seed)
    seal_seed: bytes = field(default_factory=fresh_seed)
    self_seed: bytes = field(default_factory=fresh_seed)
    stage: int = Stage.KEEP
    threshold: int = 0
    keys: NDArray = field(default_factory=_nothing)
    shares: NDArray = field(default_factory=_nothing)
    has_share: NDArray = field(default_factory=_nothing)
    sharers: NDArray = field(default_factory=_nothing)

    @property
    def public_keys(self) -> NDArray:
        """(64,) uint8: what the other members need to know."""
        keys = public_key(self.mask_seed) + public_key(self.seal_seed)
        return np.frombuffer(keys, np.uint8)

    def answer(self, question: Question) -> dict[str, NDArray]:
        """Return what the proxy asks for; see `answer_of`.

        Raises
        ------
        UnsafeQuestionError
            If it was asked before, or is not what an honest proxy asks.
        """
        _require(
            question.stage == self.stage + 1,
            f"stage {question.stage} was asked after stage {self.stage}: each comes once",
        )
        answers = {Stage.SHARE: self._share, Stage.MASK: self._mask, Stage.REVEAL: self._reveal}
        answer = answers[question.stage](question)
        self.stage = question.stage
        return answer

    def _share(self, question: Question) -> dict[str, NDArray]:
        keys, threshold = question.arrays["keys"], question.threshold
        number = len(keys)
        own = np.flatnonzero((keys == self.public_keys).all(axis=1))
        _require(len(own) == 1, f"this node's keys are {len(own)} times among the members'")
        _require(len(np.unique(keys, axis=0)) == number, "two members have the same keys")
        _require(
            number >= SMALLEST and number < 2 * threshold <= 2 * number,
            f"threshold {threshold} of {number} members: it must be more than half of at least "
            f"{SMALLEST}",
        )
        self.keys, self.threshold, place = keys.copy(), threshold, int(own[0])
        pairs = Pairs(keys)
        shares = np.empty((number, 2, SEED_BYTES), np.uint8)
        for column, seed in enumerate((self.mask_seed, self.self_seed)):
            for row, share in enumerate(split(seed, threshold, number)):
                shares[row, column] = np.frombuffer(share, np.uint8)
        sealed = np.zeros((number, SEALED_BYTES), np.uint8)
        for other in set(range(number)) - {place}:
            key = pairs.sealing(self.seal_seed, other, place, other)
            sealed[other] = np.frombuffer(seal(key, shares[other].tobytes()), np.uint8)
        self.shares, self.has_share = np.zeros_like(shares), np.zeros(number, np.uint8)
        self.shares[place], self.has_share[place] = shares[place], 1
        return {
            "sealed": sealed,
            "commitment": np.frombuffer(commitment(self.self_seed), np.uint8),
        }

    def _mask(self, question: Question) -> dict[str, NDArray]:
        number, place = len(self.keys), self._place
        self.sharers = self._marked(question.members)
        pairs, others = Pairs(self.keys), [p for p in question.members if p != place]
        for other in others:
            key = pairs.sealing(self.seal_seed, other, other, place)
            opened = unsealed(key, question.arrays["sealed"][other].tobytes())
            if opened is not None:  # else that member lies, and harms nobody but itself
                self.shares[other] = np.frombuffer(opened, np.uint8).reshape(2, SEED_BYTES)
                self.has_share[other] = 1
        words = FixedPoint(question.limit, number).encode(self.change)
        pairs.add_masks(words, self.mask_seed, place, others)
        add_self_mask(words, self.self_seed)
        self.change = self.change[:0]
        return {"masked": words}

    def _reveal(self, question: Question) -> dict[str, NDArray]:
        survivors = self._marked(question.members)
        _require(bool((survivors <= self.sharers).all()), "a member is named that shared nothing")
        # Of who survives the self seed's share, of who vanished the mask seed's.
        told = self.shares[np.arange(len(self.keys)), survivors]
        has_share = self.has_share * self.sharers
        told = told * has_share[:, None]
        self.mask_seed = self.seal_seed = self.self_seed = b""
        self.shares = _nothing()
        return {"shares": told, "has_share": has_share}

    @property
    def _place(self) -> int:
        return int(np.flatnonzero((self.keys == self.public_keys).all(axis=1))[0])

    def _marked(self, places: Iterable[int]) -> NDArray:
        """Return (K,) ones at some places, of which one is this node's."""
        number, places = len(self.keys), set(places)
        _require(
            self.threshold <= len(places) and places <= set(range(number)),
            f"{len(places)} of {number} members are left: threshold {self.threshold} is missed",
        )
        _require(self._place in places, "this node is not among the members that are left")
        marks = np.zeros(number, np.uint8)
        marks[list(places)] = 1
        return marks

    def to_arrays(self) -> dict[str, NDArray]:
        """Return all of it, for a Context."""
        return {f.name: _array_of(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray]) -> "Member":
        """Return what `to_arrays` was asked of."""
        found: dict[str, Any] = {f.name: arrays[f.name].copy() for f in fields(cls)}
        seeds = ("mask_seed", "seal_seed", "self_seed")
        found |= {name: found[name].tobytes() for name in seeds}
        found |= {name: int(found[name]) for name in ("stage", "threshold")}
        return cls(**found)


def _array_of(value: NDArray | bytes | int) -> NDArray:
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise UnsafeQuestionError(why)
