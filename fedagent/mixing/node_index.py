"""From Flower's node ids to the rows of a mixing matrix."""

from collections.abc import Mapping
from typing import Any

from fedagent import keys
from fedagent.update import Update


class NodeIndex:
    """Which of K models belongs to which node.

    A node is bound to the place that its first update names (``partition-id``, which
    `fedagent.client.mods.partition_id_mod` adds to every reply): the numbering of the data is that
    of the matrix. What it names later does not matter, and a place that another node holds is not
    given away: whoever names it would get that node's own model. Where no reply names one, places
    are given in the order of first replies. A node without a place (a number beyond K - 1, one that
    is taken, or all places taken) stays without.

    Parameters
    ----------
    num_places : K.
    """

    def __init__(self, num_places: int) -> None:
        self._num_places = num_places
        self._by_node: dict[int, int] = {}

    def get(self, node_id: int) -> int | None:
        """Return the place of a node that was heard before."""
        return self._by_node.get(node_id)

    def holder(self, place: object) -> int | None:
        """Return which node has a place; None if it is free, or no place at all."""
        return next((node for node, taken in self._by_node.items() if taken == place), None)

    def of(self, update: Update) -> int | None:
        """Return the place of the node that sent `update`, giving it one if there is one."""
        if update.node_id not in self._by_node:
            place = update.metrics.get(keys.PARTITION_ID, self._next_free())
            is_one = isinstance(place, int) and 0 <= place < self._num_places
            if not is_one or self.holder(place) is not None:
                return None
            self._by_node[update.node_id] = place
        return self._by_node[update.node_id]

    def _next_free(self) -> int | None:
        taken = set(self._by_node.values())
        return next((place for place in range(self._num_places) if place not in taken), None)

    def state_dict(self) -> dict[str, Any]:
        """Return who has which place."""
        return {str(node_id): place for node_id, place in self._by_node.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore who has which place."""
        self._by_node = {int(node_id): int(place) for node_id, place in state.items()}
