"""Which nodes bring nothing to the model, and which seem to answer with something else than one.

A fleet hides them: the others train, and the metric falls short for a reason that nobody sees.
"""

import logging
import math
from collections import Counter

import torch

from fedagent.model import blocks
from fedagent.proxy.ending import Ending
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Outcome, Update

logger = logging.getLogger("flwr.fedagent")

DEADLINE = "deadline"
"""The reason of what nobody heard of in time."""
RUN_ENDED = "run-ended"
"""The reason of what was in flight when the run ended: nobody's fault."""
_MOST_NODES = 1_000  # looked at, and kept in memory
_MOST_IN_A_LINE = 10
_TRIES = 5  # of every node, before a run in which none was ever done is hopeless
_MOST_TRIES = 25  # of all nodes together
_DELTA_LIKE = 0.1  # times the norm of the dispatched model


def overdue(dispatch: Dispatch) -> Ending:
    """Return how a dispatch ends whose deadline has passed."""
    waited_s = dispatch.deadline_s - dispatch.sent_at_s
    return Ending(Outcome.EXPIRED, DEADLINE, f"no reply within {waited_s:g} s")


class Conduct:
    """What the run learns of single nodes: it is in `statistics`, and a line in the log.

    Parameters
    ----------
    statistics : where ``fruitless`` and ``delta_like`` are kept.

    Attributes
    ----------
    last_failure : in words; "none" if there was none.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._useful: set[int] = set()
        self._looked_at: set[int] = set()
        self._has_warned = self._has_success = False
        self._num_failed = self._num_missed = 0
        self._reported: set[tuple[str, str]] = set()
        self.last_failure = "none"

    def look(self, update: Update) -> None:
        """Compare the first update of a node with the model that it was sent.

        A ClientApp that returns what it has changed, where the changed model is expected, makes
        the model vanish: x + (delta - x) is delta.
        """
        node_id = update.node_id
        if node_id in self._looked_at or len(self._looked_at) >= _MOST_NODES:
            return
        self._looked_at.add(node_id)
        sent = returned = 0.0
        for delta, base in blocks(update.delta, update.base):
            sent += float(torch.linalg.vector_norm(base, dtype=torch.float64)) ** 2
            returned += float(torch.linalg.vector_norm(base + delta, dtype=torch.float64)) ** 2
        if not 0.0 < returned < _DELTA_LIKE**2 * sent:
            return
        share = math.sqrt(returned / sent)
        if not self._statistics.delta_like:
            logger.warning(
                "What node %d sent looks like the change of a model, not like a model: its norm "
                "is %.2g times that of the model it was sent. A ClientApp returns the trained "
                "arrays themselves. More of this kind are named at the end.",
                node_id,
                share,
            )
        self._statistics.delta_like[node_id] = share

    def failed(self, node_id: int, ending: Ending) -> None:
        """Log a failure; of a kind the first one loudly."""
        self.last_failure = f"node {node_id}, {ending.reason}: {ending.detail}"
        is_new = (ending.outcome, ending.reason) not in self._reported
        self._reported.add((ending.outcome, ending.reason))
        logger.log(
            logging.WARNING if is_new else logging.DEBUG,
            "%s: %s%s",
            ending.outcome,
            self.last_failure,
            " (more of this kind are only counted)" if is_new else "",
        )

    def ended(self, node_id: int, ending: Ending) -> None:
        """Take note of how a train dispatch ended."""
        self._has_success |= ending.succeeded
        self._count_missed(node_id, ending)
        self._num_failed += ending.outcome in (Outcome.FAILED, Outcome.REJECTED)
        fruitless = self._statistics.fruitless
        if ending.outcome is Outcome.APPLIED and not ending.detail:
            self._useful.add(node_id)
            fruitless.pop(node_id, None)
        if node_id in self._useful or ending.reason == RUN_ENDED:
            return
        if node_id not in fruitless:
            if len(fruitless) >= _MOST_NODES:
                return
            fruitless[node_id] = Counter()
        reason = f"({ending.reason})" if ending.reason else f"({ending.detail})"
        fruitless[node_id][f"{ending.outcome}{reason}"] += 1
        if not self._has_warned and (named := self._statistics.fruitless_nodes()):
            self._has_warned = True
            logger.warning(
                "Nothing that node %d did has reached the model: %s. More such nodes are named at "
                "the end.",
                node_id,
                _told(named[node_id]),
            )

    def _count_missed(self, node_id: int, ending: Ending) -> None:
        """Say that no job keeps its deadline any more: late replies keep such a run going."""
        if ending.succeeded:
            self._num_missed = 0
        if ending.reason != DEADLINE:
            return
        self._num_missed += 1
        if self._num_missed == self._enough:
            logger.warning(
                "%d jobs have missed their deadlines and none has succeeded meanwhile, lately that "
                "of node %d: %s. Nothing reaches the model as long as that is so. Raise deadline_s "
                "(or timeout), or let jobs be smaller.",
                self._num_missed,
                node_id,
                ending.detail or "its round ended",
            )

    @property
    def _enough(self) -> int:
        return min(_TRIES * max(1, self._statistics.num_nodes), _MOST_TRIES)

    def hopeless(self) -> str | None:
        """Say that every job so far has failed, if that were enough to expect no better."""
        if self._has_success or self._num_failed < self._enough:
            return None
        return f"all {self._num_failed} replies so far were failures or refused"

    def tell(self) -> None:
        """Say, at the run's end, how jobs ended and which nodes brought nothing."""
        logger.info("Jobs: %s", _told(self._statistics.by_outcome()) or "none")
        fruitless = self._statistics.fruitless_nodes()
        if fruitless:
            logger.warning(
                "Nodes that brought nothing to the model: %s",
                _listed([f"{node_id} ({_told(counts)})" for node_id, counts in fruitless.items()]),
            )
        if delta_like := self._statistics.delta_like:
            logger.warning(
                "Nodes that seem to send changes, not models: %s",
                _listed([f"{node_id} ({share:.2g})" for node_id, share in delta_like.items()]),
            )


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())


def _listed(items: list[str]) -> str:
    more = len(items) - _MOST_IN_A_LINE
    return "; ".join(items[:_MOST_IN_A_LINE]) + (f"; and {more:,} more" if more > 0 else "")
