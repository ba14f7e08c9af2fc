"""Evaluating versions on the clients, without getting in training's way."""

import logging
import random
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import Ending
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.server_evaluation import Moment, moment_of
from fedagent.statistics import Evaluation
from fedagent.update import Dispatch, Kind, Outcome, Rejection

logger = logging.getLogger("flwr.fedagent")


@dataclass
class _Round:
    moment: Moment
    waiting: set[str]
    replies: list[Message] = field(default_factory=list)


class FederatedEvaluation:
    """Evaluations under way: who is asked, who is still to answer, and what came in."""

    def __init__(
        self, strategy: Strategy, options: AsyncOptions, grid: Grid, dispatcher: Dispatcher
    ) -> None:
        self._strategy, self._options, self._grid = strategy, options, grid
        self._dispatcher = dispatcher
        self._sampling = random.Random(options.seed)
        self._rounds: dict[int, _Round] = {}
        self.chosen: list[int] = []  # the nodes that are to evaluate now
        self._last_version = 0
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._rounds)

    def ask(self, arrays: ArrayRecord, config: ConfigRecord, is_over: bool = False) -> None:
        """Ask for an evaluation of the current version if one is due and somebody can do it.

        While training goes on that is whoever it leaves idle. When it is over nobody is in its way:
        a busy node evaluates after what it does.
        """
        statistics, membership = self._dispatcher.statistics, self._dispatcher.membership
        every = self._options.evaluate_clients_every
        due = self._last_version + 1 if is_over else (self._last_version // every + 1) * every
        wanted = self._options.num_evaluating(len(membership))
        if wanted == 0 or statistics.version < due:
            return
        candidates = membership.reachable() if is_over else membership.idle
        if not candidates:
            self._warn_once(statistics.version)
            return
        self.chosen = candidates.sample(wanted, self._sampling)
        messages = self._strategy.configure_evaluate(statistics.version, arrays, config, self._grid)
        sent = self._dispatcher.send(Kind.EVALUATE, messages)
        self._last_version = statistics.version  # also if the strategy asks nobody
        if sent:
            self._rounds[statistics.version] = _Round(
                moment_of(statistics), {d.message_id for d in sent}
            )

    def take(self, dispatch: Dispatch, reply: Message) -> Evaluation | None:
        """Take in a reply; return the version's evaluation if it was the last one missing."""
        metrics = self._options.admission.check_metrics(reply, dispatch)
        if isinstance(metrics, Rejection):
            self._dispatcher.close(dispatch, Ending.by(metrics))
            return self.settle(dispatch)
        self._dispatcher.close(dispatch, Ending(Outcome.APPLIED))
        self._rounds[dispatch.version].replies.append(reply)
        return self.settle(dispatch)

    def settle(self, dispatch: Dispatch) -> Evaluation | None:
        """Stop waiting for a dispatch; return the version's evaluation if it was the last one."""
        current = self._rounds[dispatch.version]
        current.waiting.discard(dispatch.message_id)
        if current.waiting:
            return None
        del self._rounds[dispatch.version]
        if not current.replies:
            return None
        metrics = self._strategy.aggregate_evaluate(dispatch.version, current.replies)
        return Evaluation(*current.moment, "clients", dict(metrics)) if metrics else None

    def _warn_once(self, version: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "No node is idle to evaluate version %d on, so clients evaluate after training "
                "only; train on fewer nodes at once (concurrency or fraction_train) to have some.",
                version,
            )
