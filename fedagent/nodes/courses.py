"""Numbers that change in steps as time goes by: a link's bandwidth, whether a node is there."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from fedagent.errors import require

_ROUNDING = 1e-12  # of an amount: it must not send a transfer's last byte across a pause


@dataclass(frozen=True)
class Course:
    """A piecewise-constant function of time: ``values[k]`` from ``begins_s[k]`` to the next one.

    Parameters
    ----------
    begins_s : seconds, the first 0, increasing.
    values : as many, >= 0; infinity is one of them.
    period_s : after which it begins again, > the last of `begins_s`; infinity: the last value
        stays.

    Raises
    ------
    ConfigurationError
        If these are not so, or all of it adds up to nothing: what waits for it would never end.
    """

    begins_s: tuple[float, ...] = (0.0,)
    values: tuple[float, ...] = (math.inf,)
    period_s: float = math.inf

    def __post_init__(self) -> None:
        begins_s, values = self.begins_s, self.values
        require(
            len(begins_s) == len(values) > 0 and begins_s[0] == 0.0,
            f"Course: {len(values)} values at {list(begins_s)[:3]}; give one value for every time, "
            "the first time being 0.",
        )
        require(
            all(a < b < math.inf for a, b in pairwise(begins_s)) and begins_s[-1] < self.period_s,
            f"Course: times must increase, and period_s={self.period_s} lie behind the last.",
        )
        require(all(v >= 0.0 for v in values), f"Course: values {values} must be at least 0.")
        require(
            values[-1] > 0.0 if math.isinf(self.period_s) else any(values),
            "Course: it stays 0 for ever; let it begin again, or end above 0.",
        )

    @cached_property
    def is_constant(self) -> bool:
        """Whether it never changes; then it is above 0."""
        return len(set(self.values)) == 1

    @cached_property
    def mean(self) -> float:
        """Over one period; the last value, if it stays."""
        return self.values[-1] if math.isinf(self.period_s) else self._total / self.period_s

    def at(self, now_s: float) -> float:
        """Return the value at `now_s` >= 0."""
        return self.values[self._place(now_s)[1]]

    def next_change_s(self, now_s: float) -> float:
        """Return when the value next changes, strictly after `now_s` >= 0; infinity if never."""
        if self.is_constant:
            return math.inf
        cycle, piece = self._place(now_s)
        value = self.values[piece]
        for begins_s, other in self._from(cycle, piece + 1):
            if other != value and begins_s > now_s:
                return begins_s
        return math.inf

    def reached_s(self, begin_s: float, amount: float) -> float:
        """Return when what flows at this rate from `begin_s` on adds up to `amount`: exactly.

        The time t with integral of the value from `begin_s` to t = `amount`, the earliest one.

        Parameters
        ----------
        begin_s : seconds, >= 0.
        amount : >= 0, such as the bytes of a transfer.
        """
        if amount <= 0.0:
            return begin_s
        left, now_s, enough = amount, begin_s, amount * _ROUNDING
        if math.isfinite(self._total):
            # As many whole periods as leave something to do: the end may precede a pause.
            skipped = max(0, math.ceil(amount / self._total) - 1)
            left, now_s = amount - skipped * self._total, begin_s + skipped * self.period_s
        cycle, piece = self._place(now_s)
        rate = self.values[piece]
        for begins_s, following in self._from(cycle, piece + 1):
            if rate > 0.0 and now_s + left / rate <= begins_s:
                return now_s + left / rate
            passed = rate * (begins_s - now_s) if rate > 0.0 else 0.0
            if rate > 0.0 and left - passed <= enough:
                return begins_s
            left, now_s, rate = left - passed, begins_s, following
        return now_s + left / rate

    def capped(self, limit: float) -> "Course":
        """Return the smaller of this and a constant `limit` > 0."""
        if limit == math.inf:
            return self
        return Course(self.begins_s, tuple(min(v, limit) for v in self.values), self.period_s)

    @cached_property
    def _total(self) -> float:
        """What a period adds up to."""
        if math.isinf(self.period_s) or math.inf in self.values:
            return math.inf
        ends_s = (*self.begins_s[1:], self.period_s)
        lasts_s = (end - begin for begin, end in zip(self.begins_s, ends_s, strict=True))
        return math.fsum(v * s for v, s in zip(self.values, lasts_s, strict=True))

    def _begins_s(self, cycle: int, piece: int) -> float:
        return self.begins_s[piece] + (cycle * self.period_s if cycle else 0.0)

    def _place(self, now_s: float) -> tuple[int, int]:
        """Return the cycle and the piece that `now_s` lies in.

        The times at which pieces begin decide, not the rounding of a division: at the very moment
        that `next_change_s` names, the value has changed.
        """
        cycle = 0 if math.isinf(self.period_s) else math.floor(now_s / self.period_s)
        cycle -= self._begins_s(cycle, 0) > now_s
        cycle += math.isfinite(self.period_s) and self._begins_s(cycle + 1, 0) <= now_s
        last = len(self.values) - 1
        piece = bisect_right(range(1, last + 1), now_s, key=lambda k: self._begins_s(cycle, k))
        return cycle, piece

    def _from(self, cycle: int, piece: int) -> Iterator[tuple[float, float]]:
        """Yield when pieces begin, and their values, from one on; without end if it repeats."""
        while True:
            for k in range(piece, len(self.values)):
                yield self._begins_s(cycle, k), self.values[k]
            if math.isinf(self.period_s):
                return
            cycle, piece = cycle + 1, 0
