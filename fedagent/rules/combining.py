r"""What a buffer of K updates is, where some of them may be lies: not their mean.

Shape legend: z_i, (P,), the i-th update as its rule weighs it, s(tau_i) Delta_i say; K of them. All
count the same: how many examples a node claims to have does not matter here.

    Median            number by number the median of z_1 .. z_K
    TrimmedMean       number by number the mean without the floor(b K) largest and smallest
    GeometricMedian   argmin_v sum_i |v - z_i|, by Weiszfeld's steps, smoothed:
                      v <- sum_i b_i z_i / sum_i b_i,   b_i = 1 / max(nu, |v - z_i|)
    CentredClipping   v <- v + (1/K) sum_i (z_i - v) min(1, c / |z_i - v|),   v: the last result

Median and trimmed mean: Yin, Chen, Ramchandran, Bartlett, arXiv 1803.01498. Geometric median:
Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning" (RFA), arXiv 1912.13445,
Algorithm 2. Centred clipping: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust
Optimization", arXiv 2012.10333, Algorithm 2.

Ours: Weiszfeld's steps begin at the median, not at the mean, which one lie can take anywhere; and
without a radius c is the median of the |z_i - v|, anew in every step.

All of it is for fewer lies than half of K, and for one update per node in it (`OnePerNode`): who is
fast would otherwise be the majority.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import blocks
from fedagent.rules.buffer import Buffer


class Combining(ABC):
    """How K updates become one."""

    @abstractmethod
    def combine(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what the K >= 1 (P,) points are together, as a new vector."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered from one buffer to the next."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Median(Combining):
    """The coordinate-wise median; of an even number the mean of the middle two."""

    def combine(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the median of every number."""
        low, high = (len(points) - 1) // 2, len(points) // 2 + 1
        return _mean_of_sorted(points, low, high)


class TrimmedMean(Combining):
    """The coordinate-wise mean without the extremes.

    Parameters
    ----------
    share : b in [0, 0.5), what is cut off at either end; at least the share of liars.
    """

    def __init__(self, share: float = 0.3) -> None:
        require(0 <= share < 0.5, f"TrimmedMean: share={share} must lie in [0, 0.5).")
        self.share = share

    def combine(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mean of what is left of every number."""
        cut = int(self.share * len(points) + 1e-9)
        return _mean_of_sorted(points, cut, len(points) - cut)


class GeometricMedian(Combining):
    """The point with the least sum of distances to all updates.

    Parameters
    ----------
    steps : of Weiszfeld, >= 1.
    smoothing : nu > 0, the least distance; no update that is so near counts more than another.
    """

    def __init__(self, steps: int = 8, smoothing: float = 1e-6) -> None:
        require(steps >= 1, f"GeometricMedian: steps={steps} must be at least 1.")
        require(smoothing > 0, f"GeometricMedian: smoothing={smoothing} must be positive.")
        self.steps, self.smoothing = steps, smoothing

    def combine(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return about the geometric median."""
        centre = Median().combine(points)
        for _ in range(self.steps):
            shares = [1.0 / max(self.smoothing, _distance(centre, z)) for z in points]
            total = sum(shares)
            centre.zero_()
            for share, z in zip(shares, points, strict=True):
                centre.add_(z, alpha=share / total)
        return centre


class CentredClipping(Combining):
    """The last result, moved by the mean of what leads from it to the updates, each cut to c.

    Parameters
    ----------
    radius : c > 0; None for the median distance.
    steps : >= 1; with more the result depends less on the last one.
    """

    def __init__(self, radius: float | None = None, steps: int = 5) -> None:
        require(
            radius is None or radius > 0,
            f"CentredClipping: radius={radius} must be positive, or null for the median distance.",
        )
        require(steps >= 1, f"CentredClipping: steps={steps} must be at least 1.")
        self.radius, self.steps = radius, steps
        self._centre: torch.Tensor | None = None

    def combine(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the new centre."""
        centre = torch.zeros_like(points[0]) if self._centre is None else self._centre.clone()
        for _ in range(self.steps):
            distances = [_distance(centre, z) for z in points]
            radius = self.radius or float(torch.tensor(distances).median())
            kept = [min(1.0, radius / d) if d else 0.0 for d in distances]
            centre.mul_(1.0 - sum(kept) / len(points))
            for share, z in zip(kept, points, strict=True):
                centre.add_(z, alpha=share / len(points))
        self._centre = centre.clone()
        return centre

    def state_dict(self) -> dict[str, Any]:
        """Return the last result."""
        return {"centre": None if self._centre is None else self._centre.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the last result."""
        centre = state["centre"]
        self._centre = None if centre is None else centre.clone()


class CombiningBuffer(Buffer):
    """A buffer that keeps its updates, and combines them in another way than by their mean.

    Parameters
    ----------
    combining : how.
    """

    def __init__(self, combining: Combining) -> None:
        super().__init__()
        self.combining = combining
        self._points: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self._points)

    def add(self, delta: torch.Tensor, weight: float = 1.0, share: float | None = None) -> None:
        """Take in z_i = (weight / share) Delta_i, in the memory of the (P,) `delta`.

        What has no share at all is as if nothing had moved.
        """
        share = weight if share is None else share
        self._points.append(delta.mul_(weight / share if share > 0 else 0.0))

    def subtract(self, vector: torch.Tensor) -> None:
        """Take a (P,) vector off the newest update."""
        self._points[-1].sub_(vector)

    def take(self) -> torch.Tensor:
        """Empty the buffer; return what its updates are together."""
        points, self._points = self._points, []
        return self.combining.combine(points)

    def state_dict(self) -> dict[str, Any]:
        """Return the updates, and what is remembered besides."""
        points = [point.clone() for point in self._points]
        return {"points": points, "combining": self.combining.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._points = [point.clone() for point in state["points"]]
        self.combining.load_state_dict(state["combining"])


def _mean_of_sorted(points: Sequence[torch.Tensor], low: int, high: int) -> torch.Tensor:
    """Return, number by number, the mean of the sorted values from `low` up to before `high`."""
    result = torch.empty_like(points[0])
    for part, *columns in blocks(result, *points):
        ordered = torch.stack(columns).sort(0).values
        torch.mean(ordered[low:high], 0, out=part)
    return result


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return |a - b|, summed in float64, which no finite float32 overflows."""
    square = 0.0
    for x, y in blocks(a, b):
        difference = x.double() - y.double()
        square += float(difference @ difference)
    return float(square**0.5)
