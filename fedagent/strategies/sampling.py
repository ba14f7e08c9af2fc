"""Which nodes a Flower strategy samples from for a round of training, and how many.

Over-selection
    asks ceil(K s) nodes for a cohort of K; see `fedagent.strategies.cutoff`.
Busy nodes
    are at work for a round that did not wait for them. They are hidden from the strategy. If fewer
    nodes are free than it asks for, as many of the busy are shown as are missing, those that have
    been busy longest first: they do the new job after the old one.

The cohort stays that of all connected nodes: ``fraction_train`` is not a fraction of the free.
"""

import math
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent.errors import require


class Sampling:
    """Stands before a strategy's ``configure_train``; `shown` is what its grid shows meanwhile.

    Changes ``min_train_nodes`` and ``min_available_nodes`` while the strategy samples, and nothing
    else of it. A strategy without them samples in its own way, from all nodes.

    Parameters
    ----------
    strategy : the strategy that samples.
    over_selection : s >= 1, nodes asked for each that is needed; None for as many as are needed.
    skip_busy : whether busy nodes are hidden.

    Attributes
    ----------
    enough : replies that the cohort sampled last needs; None for all of them.

    Raises
    ------
    ConfigurationError
        If more are to be asked by a strategy that does not sample as FedAvg does.
    """

    UNSAVED: ClassVar = ("_configure", "_own")

    def __init__(
        self, strategy: Strategy, over_selection: float | None = None, skip_busy: bool = True
    ) -> None:
        names = ("fraction_train", "min_train_nodes", "min_available_nodes")
        self._is_known = all(hasattr(strategy, name) for name in names)
        require(
            over_selection is None or self._is_known,
            f"over_selection={over_selection} needs a strategy that samples as FedAvg does, with "
            f"{', '.join(names)}; {type(strategy).__name__} lacks some. Leave over_selection out, "
            "or set a deadline.",
        )
        self._strategy: Any = strategy
        self._factor, self._skip_busy = over_selection, skip_busy
        self._configure = strategy.configure_train
        self._own: Any = None
        self._asked: int | None = None  # while the strategy samples, and busy nodes are hidden
        self.enough: int | None = None

    @property
    def is_hiding(self) -> bool:
        """Whether the strategy samples right now, and not from all nodes."""
        return self._asked is not None

    def shown(self, connected: Iterable[int], busy: Collection[int]) -> list[int]:
        """Return the nodes that the strategy is to see.

        Parameters
        ----------
        connected : ids of all nodes.
        busy : ids of those at work, who has been for longest first.
        """
        nodes = list(connected)
        if self._asked is None:
            return nodes
        free = [node_id for node_id in nodes if node_id not in busy]
        known = set(nodes)
        needed = [node_id for node_id in busy if node_id in known]
        return free + needed[: max(0, self._asked - len(free))]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Do as the strategy does, with a larger sample, or from fewer nodes."""
        strategy, connected = self._strategy, len(list(grid.get_node_ids()))
        own = strategy.min_train_nodes, strategy.min_available_nodes
        cohort = max(int(connected * strategy.fraction_train), own[0])
        asked = cohort
        if self._factor is not None:
            self.enough = cohort
            # 1.1 * 10 is a little more than 11.
            asked = max(cohort, min(math.ceil(round(cohort * self._factor, 9)), connected))
        strategy.min_train_nodes = asked
        if self._skip_busy and connected >= own[1]:  # or Flower waits for more nodes
            self._asked, strategy.min_available_nodes = asked, min(own[1], asked)
        try:
            return list(self._configure(server_round, arrays, config, grid))
        finally:
            self._asked = None
            strategy.min_train_nodes, strategy.min_available_nodes = own

    def __enter__(self) -> "Sampling":
        """Stand before the strategy's own ``configure_train``."""
        if self._is_known:
            self._own = vars(self._strategy).get("configure_train")  # if its user has put one there
            self._strategy.configure_train = self.configure_train
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the strategy back as it was."""
        if self._is_known:
            del self._strategy.configure_train
        if self._own is not None:
            self._strategy.configure_train = self._own
