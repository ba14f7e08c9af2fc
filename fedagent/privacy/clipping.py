r"""How far an update may reach: a fixed norm, or one that follows a quantile of what comes.

    after every release:   C <- C exp( -eta (b - gamma) ),   b = (sum_i b_i + N(0, sigma_b^2)) / K
    b_i = 1 if |Delta_i| <= C, else 0

Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive Clipping", arXiv
1905.03871, Algorithm 1. The bits are private too. Shifted by 1/2 (as there) a node's bit moves
their sum by at most 1/2, so its release is 1 / (2 sigma_b)-Gaussian differentially private.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedagent.errors import require


@dataclass
class Clipping:
    """The clipping norm C, and what it learns by.

    Parameters
    ----------
    norm : C > 0, at the beginning.
    quantile : gamma in (0, 1), the share of updates that shall be left whole; None for a fixed C.
    rate : eta > 0, how fast C follows.
    """

    norm: float
    quantile: float | None = None
    rate: float = 0.2

    def __post_init__(self) -> None:
        require(
            0 < self.norm < math.inf, f"clip_norm={self.norm} must be positive: all would be cut."
        )
        require(
            self.quantile is None or 0 < self.quantile < 1,
            f"clip_quantile={self.quantile} must lie in (0, 1), or be null for a fixed norm.",
        )
        require(self.rate > 0, f"clip_rate={self.rate} must be positive.")
        self._num_whole = self._num_seen = 0

    def bits_std(self, buffer_size: int) -> float:
        """Return sigma_b, a twentieth of a release's updates as in the paper, but at least 1/2."""
        return max(0.5, buffer_size / 20)

    def factor(self, norm: float) -> float:
        """Return min(1, C / norm) for an update of this norm, and count whether it is whole."""
        self._num_seen += 1
        self._num_whole += norm <= self.norm
        return 1.0 if norm <= self.norm else self.norm / norm

    def follow(self, buffer_size: int, noise: float) -> None:
        """Move C after a release; `noise` is a draw of the standard deviation `bits_std`.

        A release with fewer than `buffer_size` updates counts as if the others were half whole:
        how many there are is no secret, and dividing by less would need more noise.
        """
        if self.quantile is not None:
            shifted = self._num_whole - self._num_seen / 2 + noise
            share = min(1.0, max(0.0, shifted / buffer_size + 0.5))
            self.norm *= math.exp(-self.rate * (share - self.quantile))
        self._num_whole = self._num_seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Return C and the counts of the release to come."""
        return {"norm": self.norm, "num_whole": self._num_whole, "num_seen": self._num_seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.norm = float(state["norm"])
        self._num_whole, self._num_seen = int(state["num_whole"]), int(state["num_seen"])
