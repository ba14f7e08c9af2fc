"""How long a SuperNode waits before it asks the SuperLink again for work."""

from dataclasses import dataclass, field

from fedagent.errors import require


@dataclass
class Idleness:
    """Ask soon after there was work, ever less often while there is none.

    Parameters
    ----------
    first_s : seconds until the second question, > 0.
    longest_s : the longest wait in seconds; Flower's own SuperNode always waits 3.
    growth : factor from one wait to the next, >= 1.
    """

    first_s: float = 0.05
    longest_s: float = 3.0
    growth: float = 1.5
    _next_s: float = field(init=False)

    def __post_init__(self) -> None:
        require(
            0 < self.first_s <= self.longest_s,
            f"A SuperNode cannot wait {self.longest_s} s at most: choose at least {self.first_s}.",
        )
        require(self.growth >= 1, f"Idleness: growth={self.growth} must be at least 1.")
        self._next_s = self.first_s

    def reset(self) -> None:
        """There was work."""
        self._next_s = self.first_s

    def next_s(self) -> float:
        """Return how long to wait now."""
        wait_s, self._next_s = self._next_s, min(self.longest_s, self._next_s * self.growth)
        return wait_s
