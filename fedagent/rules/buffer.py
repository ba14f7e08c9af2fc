"""The buffer that many rules share: a weighted mean that never keeps the updates."""

from collections.abc import Mapping
from typing import Any

import torch


class Buffer:
    """A running sum_i w_i Delta_i and its divisor; ``len`` counts the updates in it."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._divisor = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, delta: torch.Tensor, weight: float = 1.0, share: float | None = None) -> None:
        """Take in a (P,) update with a weight >= 0, and add `share` (the weight) to the divisor."""
        if self._sum is None:
            self._sum = torch.empty_like(delta)
        if self._count == 0:
            torch.mul(delta, weight, out=self._sum)
        else:
            self._sum.add_(delta, alpha=weight)
        self._divisor += weight if share is None else share
        self._count += 1

    def subtract(self, vector: torch.Tensor) -> None:
        """Take a (P,) vector off the sum; it is no update and does not count."""
        assert self._sum is not None, "subtract() from a buffer that was never filled"
        self._sum.sub_(vector)

    def take(self) -> torch.Tensor:
        """Empty the buffer; return sum / divisor, valid until the next `add`.

        A divisor of 0, or so small that its inverse overflows float32, makes a mean of 0.
        """
        assert self._sum is not None, "take() of a buffer that was never filled"
        mean = self._sum.mul_(1.0 / self._divisor) if self._divisor > 1e-30 else self._sum.zero_()
        self._divisor, self._count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        total = self._sum.clone() if self._sum is not None and self._count else None
        return {"sum": total, "divisor": self._divisor, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the sums."""
        self._sum = None if state["sum"] is None else state["sum"].clone()
        self._divisor, self._count = float(state["divisor"]), int(state["count"])
