"""Which version changed which node's model: what the age of an update is counted with."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any


class ChangeLog:
    """The latest versions at which each of K models changed.

    Parameters
    ----------
    num_nodes : K.
    limit : changes per model that can be counted, >= 1; an update that is older than that is taken
        to be `limit` changes old. Memory: at most 2 K limit integers.
    """

    def __init__(self, num_nodes: int, limit: int = 1000) -> None:
        self._limit = limit
        self._versions: list[list[int]] = [[] for _ in range(num_nodes)]

    def mark(self, nodes: Iterable[int], version: int) -> None:
        """Note that `version`, not older than any noted so far, changed the models of `nodes`."""
        for node in nodes:
            versions = self._versions[node]
            versions.append(version)
            if len(versions) > 2 * self._limit:
                del versions[: -self._limit]

    def since(self, node: int, version: int) -> int:
        """Return tau: how often the model of `node` changed after `version`, at most `limit`."""
        versions = self._versions[node]
        return min(self._limit, len(versions) - bisect_right(versions, version))

    def state_dict(self) -> dict[str, Any]:
        """Return the versions."""
        return {"versions": [list(versions) for versions in self._versions]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the versions."""
        self._versions = [list(versions) for versions in state["versions"]]
