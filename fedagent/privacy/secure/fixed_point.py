r"""Numbers whose sums are exact: fixed point, modulo 2^32.

    q = round(clip(x, -R, R) S) mod 2^32,    S the largest power of 2 with K (R S + 1) < 2^31

So K numbers add up without running over, and the sum, read as a signed integer, is exact. With
R = 4 and K = 10 numbers are multiples of 3e-8.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedagent.arrays import NDArray

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """How K numbers are written so that a sum modulo 2^32 is theirs.

    Parameters
    ----------
    limit : R > 0, the largest number; what lies beyond is cut to it.
    num_terms : K >= 1, the most numbers in a sum.
    """

    limit: float
    num_terms: int

    @property
    def scale(self) -> float:
        """S, steps per unit."""
        _, exponent = math.frexp((_MOST - self.num_terms) / (self.num_terms * self.limit))
        return math.ldexp(1.0, exponent - 1)

    def encode(self, numbers: NDArray) -> NDArray:
        """Return finite floating numbers as uint32, cut to the limit."""
        inside = np.clip(numbers.astype(np.float64), -self.limit, self.limit)
        return np.rint(inside * self.scale).astype(np.int32).view(np.uint32)

    def decode(self, total: NDArray) -> NDArray:
        """Return the sum, in float64, that a sum modulo 2^32 stands for."""
        return total.view(np.int32) / self.scale
