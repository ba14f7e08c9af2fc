r"""Gaussian noise for a sequence of releases: anew for each, or along a tree.

Along a tree the noise of all releases so far together is the sum of as many draws as their number
has ones in binary, instead of as many as there are releases:

    release t = 2^j (2 i + 1):   + one new draw of level j,   - the draws of levels 0 .. j - 1

Kairouz, McMahan, Song, Thakkar, Thakurta, Xu, "Practical and Private (Deep) Learning Without
Sampling or Shuffling", arXiv 2103.00039, section 4 (DP-FTRL), after Dwork et al. 2010 and Chan et
al. 2011. A contribution to one release is part of at most floor(log2 T) + 1 draws' sums in a tree
of T releases, which is what a node pays that is in one release of a tree.
"""

import math
import secrets
from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import blocks


class Noise:
    """Draws of a generator that nobody else uses.

    Parameters
    ----------
    seed : of the generator; None for one that nobody knows, another whenever it begins anew.
    tree_releases : T >= 1, releases of a tree, after which another begins; None for no tree.
    """

    def __init__(self, seed: int | None, tree_releases: int | None = None) -> None:
        require(
            tree_releases is None or tree_releases >= 1,
            f"tree_releases={tree_releases} must be at least 1, or null for noise without a tree.",
        )
        self.tree_releases = tree_releases
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._levels: dict[int, torch.Tensor] = {}
        self._num_releases = 0  # of this tree

    def begin(self) -> torch.Generator:
        """Return the generator, which is seeded the first time."""
        if self._generator is None:
            seed = secrets.randbits(63) if self._seed is None else self._seed
            self._generator = torch.Generator().manual_seed(seed)
        return self._generator

    @property
    def draws_per_contribution(self) -> int:
        """How many draws hide a contribution to one release."""
        return 1 if self.tree_releases is None else int(math.log2(self.tree_releases)) + 1

    @property
    def is_new(self) -> bool:
        """Whether the next release is the first of a tree."""
        return self._num_releases == 0

    def add_to(self, total: torch.Tensor, std: float) -> None:
        """Add the next release's noise to a (P,) sum, each draw of standard deviation `std`."""
        if self.tree_releases is None:
            for (block,) in blocks(total):
                block.add_(self._draw(block), alpha=std)
            return
        self._num_releases += 1
        level = (self._num_releases & -self._num_releases).bit_length() - 1
        for below in range(level):
            total.sub_(self._levels.pop(below))
        self._levels[level] = fresh = torch.empty_like(total)
        for (block,) in blocks(fresh):
            block.copy_(self._draw(block)).mul_(std)
        total.add_(fresh)
        if self._num_releases == self.tree_releases:
            self._levels.clear()
            self._num_releases = 0

    def number(self, std: float) -> float:
        """Return one more draw."""
        return float(torch.randn((), generator=self.begin(), dtype=torch.float64)) * std

    def _draw(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.begin(), dtype=like.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return where the generator is, and the tree's draws."""
        return {
            "generator": None if self._generator is None else self._generator.get_state(),
            "levels": {str(level): draw.clone() for level, draw in self._levels.items()},
            "num_releases": self._num_releases,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it: the same releases get the same noise."""
        self._generator = None
        if state["generator"] is not None:
            self.begin().set_state(state["generator"])
        self._levels = {int(level): draw.clone() for level, draw in state["levels"].items()}
        self._num_releases = int(state["num_releases"])
