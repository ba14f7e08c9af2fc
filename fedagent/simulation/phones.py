"""Phones as they were measured: how fast they compute, and how slow their links are.

phones.csv, beside this file, holds quantiles and where they are from. A node draws u from U(0, 1)
and gets the u-quantile, interpolated linearly between those of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from fedagent.nodes.geography import Links
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.profiles import Positive

_TABLE = Path(__file__).with_name("phones.csv")
_BYTES_PER_MBIT = 1e6 / 8
_KEY = (0, 1)  # behind (seed, index), which are the profile's; (seed, index, n) are job n's


@dataclass(frozen=True)
class PhoneLinks(Links):
    """Every node's own bandwidth, drawn from the means of 1,070 traces of slow links.

    From 0.13 to 5.7 Mbit/s, median 1.7: mobile and home links of 2010 to 2020, not fibre. Drawn
    whatever the node's speed is, and the same for a (seed, node) in any fleet. Constant in time;
    for a bandwidth that changes see `Trace`.

    Attributes
    ----------
    latency_s : as in `Links`.
    download_bytes_per_s, upload_bytes_per_s : no node's are faster than these.
    upload_share : a node's upload over its download, > 0. The traces are of downloads; that
        uploads are as fast is assumed, and flatters them.
    """

    upload_share: Positive = 1.0

    def of_node(self, seed: int, index: int) -> Links:
        """Return the links of node `index`, which follow from (seed, index) alone."""
        shares, _, mbit_per_s = _table()
        drawn = np.random.default_rng([seed, index, *_KEY]).random()
        rate = _BYTES_PER_MBIT * float(np.interp(drawn, shares, mbit_per_s))
        return Links(
            self.latency_s,
            min(rate, self.download_bytes_per_s),
            min(rate * self.upload_share, self.upload_bytes_per_s),
        )


@dataclass(frozen=True, kw_only=True)
class Phones(Fleet):
    """Phones: speeds from the CPU scores of 333 of them, links as `PhoneLinks` draws them.

    The median phone takes `seconds_per_step` for a step, the slowest one 14.7 times as long, the
    fastest one 0.36 times.
    """

    links: Links = field(default_factory=PhoneLinks)

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw a phone's speed; return one over it."""
        shares, relative_speeds, _ = _table()
        return 1.0 / float(np.interp(generator.random(), shares, relative_speeds))


@cache
def _table() -> tuple[Sequence[float], ...]:
    """Return the columns: shares from 0 to 1, speeds over the median one, Mbit/s."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")][1:]
    return tuple(tuple(map(float, column)) for column in zip(*rows, strict=True))
