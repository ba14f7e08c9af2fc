"""Evaluating the model on the clients, once a round, beside training."""

import math
import random
from collections import Counter
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import Ending
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.server_evaluation import Moment
from fedagent.statistics import Evaluation
from fedagent.update import Dispatch, Kind, Outcome, Rejection

MAX_WAITING = 2
"""Rounds that a node may have still to answer: it may do the last one when the next is complete."""


@dataclass
class _Sample:
    """The nodes that evaluate after one round."""

    moment: Moment
    num_waiting: int
    replies: list[Message] = field(default_factory=list)


class FederatedEvaluation:
    """Evaluations under way: who is asked, who is still to answer, and what came in.

    Nodes that training leaves idle are asked first, then those at work, which evaluate when they
    are done with their job. A node that has two rounds still to answer is left out: a slow one
    evaluates some rounds only, and always the last.
    """

    def __init__(
        self, strategy: Strategy, options: AsyncOptions, grid: Grid, dispatcher: Dispatcher
    ) -> None:
        self._strategy, self._options, self._grid = strategy, options, grid
        self._dispatcher = dispatcher
        self._sampling = random.Random(options.seed)
        self._samples: dict[str, _Sample] = {}  # by message id
        self._num_asked: Counter[int] = Counter()  # by node id, without an answer yet
        self.chosen: list[int] = []  # the nodes that are to evaluate now
        self._last_round = 0

    def __len__(self) -> int:
        return len(self._samples)

    def ask(self, arrays: ArrayRecord, config: ConfigRecord, is_over: bool = False) -> None:
        """Ask for an evaluation after the last round if one is due and somebody can do it."""
        statistics = self._dispatcher.statistics
        every = self._options.evaluate_clients_every
        due = self._last_round + 1 if is_over else (self._last_round // every + 1) * every
        wanted = self._options.num_evaluating(len(self._dispatcher.membership))
        if wanted == 0 or statistics.server_round < due:
            return
        self.chosen = self._choose(wanted, math.inf if is_over else MAX_WAITING)
        if not self.chosen:
            return
        self._last_round = statistics.server_round
        messages = self._strategy.configure_evaluate(
            statistics.server_round, arrays, config, self._grid
        )
        sent = self._dispatcher.send(Kind.EVALUATE, messages)
        sample = _Sample(Moment.of(statistics), len(sent))
        self._samples |= {dispatch.message_id: sample for dispatch in sent}
        self._num_asked.update(dispatch.node_id for dispatch in sent)

    def _choose(self, wanted: int, max_waiting: float) -> list[int]:
        """Return the nodes that are to evaluate: idle ones, and where these are few, others."""
        membership = self._dispatcher.membership
        chosen = membership.idle.sample(wanted, self._sampling)
        if len(chosen) < wanted:
            others = membership.reachable()
            full = [node_id for node_id, asked in self._num_asked.items() if asked >= max_waiting]
            for node_id in (*chosen, *full):
                others.discard(node_id)
            chosen += others.sample(wanted - len(chosen), self._sampling)
        return chosen

    def take(self, dispatch: Dispatch, reply: Message) -> Evaluation | None:
        """Take in a reply; return the round's evaluation if it was the last one missing."""
        metrics = self._options.admission.check_metrics(reply, dispatch)
        if isinstance(metrics, Rejection):
            self._dispatcher.close(dispatch, Ending.by(metrics))
            return self.settle(dispatch)
        self._dispatcher.close(dispatch, Ending(Outcome.APPLIED))
        self._samples[dispatch.message_id].replies.append(reply)
        return self.settle(dispatch)

    def settle(self, dispatch: Dispatch) -> Evaluation | None:
        """Stop waiting for a dispatch; return the round's evaluation if it was the last one."""
        sample = self._samples.pop(dispatch.message_id)
        self._num_asked[dispatch.node_id] -= 1
        if not self._num_asked[dispatch.node_id]:
            del self._num_asked[dispatch.node_id]
        sample.num_waiting -= 1
        if sample.num_waiting or not sample.replies:
            return None
        moment = sample.moment
        metrics = self._strategy.aggregate_evaluate(moment.server_round, sample.replies)
        return moment.evaluation("clients", metrics) if metrics else None
