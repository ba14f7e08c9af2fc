"""Strategies with a rule and settings that go together: one-line replacements for ``FedAvg``."""

from collections.abc import Callable
from typing import Any

from fedagent import rules
from fedagent.nodes.geography import Links, Regions
from fedagent.rules.buffered import BufferSize
from fedagent.rules.fedbuff import Normalise
from fedagent.rules.staleness import Staleness, polynomial
from fedagent.strategies.async_strategy import AsyncStrategy


class FedAsync(AsyncStrategy):
    """FedAsync: every arriving client model is mixed in; see `fedagent.rules.FedAsync`."""

    def __init__(
        self, *, alpha: float = 0.6, staleness: Staleness = polynomial, **options: Any
    ) -> None:
        super().__init__(rules.FedAsync(alpha, staleness), **options)


class FedBuff(AsyncStrategy):
    """FedBuff: every `buffer_size` updates make a version; see `fedagent.rules.FedBuff`.

    By default that is a cohort, a round's worth. Where all are equally fast and no more are at
    work, this is FedAvg.
    """

    def __init__(
        self,
        *,
        buffer_size: BufferSize = "cohort",
        server_learning_rate: float = 1.0,
        staleness: Staleness = polynomial,
        normalise: Normalise = "buffer",
        weighted: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            rules.FedBuff(buffer_size, server_learning_rate, staleness, normalise, weighted),
            **options,
        )


class Hierarchical(AsyncStrategy):
    """A proxy per region under a root, all asynchronous; see `fedagent.rules.Hierarchical`.

    Both levels are FedBuff unless told otherwise: edges with 10 updates per version, and a root
    that publishes for every delta that arrives.
    """

    def __init__(
        self,
        regions: Regions,
        *,
        edge: Callable[[], rules.Rule] = rules.FedBuff,
        root: rules.Rule | None = None,
        send_every: int = 32,
        merge_weight: float = 0.25,
        links: Links | None = None,
        **options: Any,
    ) -> None:
        root = root or rules.FedBuff(buffer_size=1)
        super().__init__(
            rules.Hierarchical(regions, edge, root, send_every, merge_weight, links), **options
        )
