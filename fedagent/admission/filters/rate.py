"""A bound on how often one node may be heard."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from fedagent.admission.filters.base import Filter, refused
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.update import Rejection, Update


class RateCap(Filter):
    """Refuses a node that sent more than its share of the newest updates; it gets no rest for that.

    Parameters
    ----------
    most : updates of a node, >= 1,
    window : among so many that were taken last, > `most`.
    """

    def __init__(self, most: int = 2, window: int = 20) -> None:
        require(
            1 <= most < window,
            f"RateCap: most={most} must be at least 1 and less than window={window}.",
        )
        self.most, self.window = most, window
        self._last: deque[int] = deque()
        self._counts: Counter[int] = Counter()

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Count the update, unless its node has had its turn."""
        node_id = update.node_id
        if self._counts[node_id] >= self.most:
            self._let_go()
            detail = f"{self.most} of the last {self.window} updates are of node {node_id}"
            return refused("too-often", detail, blames_node=False)
        self._last.append(node_id)
        self._counts[node_id] += 1
        if len(self._last) > self.window:
            self._let_go()
        return update

    def _let_go(self) -> None:
        """Forget the oldest, also for what is refused: or who is alone would wait for good."""
        if self._last:
            oldest = self._last.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def state_dict(self) -> dict[str, Any]:
        """Return who was taken last."""
        return {"last": list(self._last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore who was taken last."""
        self._last = deque(map(int, state["last"]))
        self._counts = Counter(self._last)
