r"""Short vectors that keep the angles between long ones: a count sketch.

    z_b = sum_{p: h(p) = b} sigma(p) x_p,    b = 1..D,  h and sigma drawn at random for every p

<z(x), z(y)> has the mean <x, y> and a standard deviation of at most sqrt(2 / D) |x| |y|
(Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", arXiv 0902.2206, lemma 2).
"""

import torch


class Sketch:
    """A random linear map from P to D numbers that costs P additions.

    Memory: P int32, whatever D is; they follow from the seed.

    Parameters
    ----------
    num_parameters : P.
    size : D >= 1.
    seed : of h and sigma.
    """

    def __init__(self, num_parameters: int, size: int, seed: int = 0) -> None:
        self._size = size
        generator = torch.Generator().manual_seed(seed)
        # h and sigma in one number: the first D slots add to z, the others subtract from it.
        self._slots = torch.randint(
            2 * size, (num_parameters,), generator=generator, dtype=torch.int32
        )

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the (D,) float64 sketch of a (P,) vector."""
        sums = torch.zeros(2 * self._size, dtype=vector.dtype)
        sums.index_add_(0, self._slots, vector)
        return (sums[: self._size] - sums[self._size :]).double()
