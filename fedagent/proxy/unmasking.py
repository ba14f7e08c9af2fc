"""The talk with nodes whose updates are in secure sums, while all others go on training."""

import logging
from collections.abc import Callable, Iterator
from typing import ClassVar

from flwr.app import ConfigRecord, Message

from fedagent import keys
from fedagent.admission.sealed import sealed_arrays
from fedagent.model import FlatModel
from fedagent.privacy.secure import Gathering, SecureSums, SumEnd
from fedagent.proxy.conduct import RUN_ENDED
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import Ending
from fedagent.proxy.options import AsyncOptions
from fedagent.rules import Rule
from fedagent.scheduling import Assignment
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Kind, Outcome, Rejection
from fedagent.wire.records import payload_bytes, to_record

logger = logging.getLogger("flwr.fedagent")


class Unmasking:
    """Asks the members of sums, stage by stage, and tells the rule how each sum ended.

    Parameters
    ----------
    options : of the run.
    dispatcher : sends the questions, and ends them.
    rule : `SecureSums`, or any other, for which there is nothing to do.
    model : the run's.
    """

    KIND: ClassVar = Kind.UNMASK

    def __init__(
        self, options: AsyncOptions, dispatcher: Dispatcher, rule: Rule, model: FlatModel
    ) -> None:
        self._options, self._dispatcher = options, dispatcher
        self._rule = rule if isinstance(rule, SecureSums) else None
        self._model = model
        self._sums: dict[int, Gathering] = {}  # by node
        self._to_ask: list[Gathering] = []
        self._ended: list[SumEnd] = []
        self._told: set[str] = set()

    @property
    def is_under_way(self) -> bool:
        """Whether any sum is, or can begin."""
        return bool(self._sums) or self._can_begin

    @property
    def _can_begin(self) -> bool:
        return self._rule is not None and self._rule.can_admit

    def stalled(self) -> RunEnd | None:
        """Return why the run cannot go on, unless there is something to ask."""
        return None if self._to_ask or self._can_begin else self._dispatcher.stalled()

    def ask(self) -> None:
        """Begin sums of the nodes that are ready, and ask what is to be asked next in others."""
        while self._rule is not None and self._rule.can_admit:
            assert self._options.secure is not None
            members = self._rule.take_members()
            needed = self._options.secure.members_needed(len(members))
            limit = self._options.secure.limit
            gathering = Gathering(members, needed, limit, self._model.spec.num_parameters)
            self._sums |= dict.fromkeys(members, gathering)
            self._to_ask.append(gathering)
        while self._to_ask:
            gathering = self._to_ask.pop(0)
            messages = self._messages(gathering)
            asked = {d.node_id for d in self._dispatcher.send(Kind.UNMASK, messages)}
            for node_id in gathering.awaited.keys() - asked:
                gathering.lose(node_id)
            self._go_on(gathering)

    def take(self, dispatch: Dispatch, reply: Message) -> None:
        """Take in an answer."""
        gathering = self._sums[dispatch.node_id]
        num_bytes = 0 if reply.has_error() else payload_bytes(reply.content)
        found = sealed_arrays(self._options.admission, reply, dispatch, gathering.expected)
        if isinstance(found, Rejection):
            self._dispatcher.close(dispatch, Ending.by(found, num_bytes))
            self.settle(dispatch)
            return
        self._dispatcher.close(dispatch, Ending(Outcome.APPLIED, received_bytes=num_bytes))
        gathering.answer(dispatch.node_id, found)
        self._go_on(gathering)

    def settle(self, dispatch: Dispatch) -> None:
        """Go on without a member whose answer will not come."""
        gathering = self._sums[dispatch.node_id]
        gathering.lose(dispatch.node_id)
        self._go_on(gathering)

    def end(self) -> None:
        """End with the run what is in flight, and all sums that are not done."""
        self._dispatcher.end_all(Kind.UNMASK)
        self.give_up(RUN_ENDED)

    def give_up(self, reason: str) -> None:
        """Forget all sums, and the updates that nodes keep for others."""
        self._sums, self._to_ask = {}, []
        if self._rule is not None:
            self._rule.give_up(reason)
            statistics = self._dispatcher.statistics
            statistics.buffered, statistics.lost = self._rule.pending, self._rule.lost

    def tell_rule(self, note: Callable[[SumEnd], None]) -> bool:
        """Tell the rule how sums have ended, after `note` was; return whether any has."""
        ended, self._ended = self._ended, []
        for outcome in ended:
            note(outcome)
            self.settle_again(outcome)
        return bool(ended)

    def settle_again(self, outcome: SumEnd) -> None:
        """Tell the rule how a sum has ended."""
        assert self._rule is not None
        self._rule.settle(outcome)

    def _go_on(self, gathering: Gathering) -> None:
        """If a stage is over, let the next one be asked for, or note the end."""
        if gathering.awaited:
            return
        gathering.advance()
        if gathering.outcome is None:
            self._to_ask.append(gathering)
        else:
            self._end(gathering.outcome)

    def _messages(self, gathering: Gathering) -> Iterator[Message]:
        for node_id in gathering.awaited:
            question = gathering.question(node_id)
            config = ConfigRecord(
                {
                    keys.SECURE: int(question.stage),
                    keys.LOCAL_STEPS: 0,  # it is no work
                    "threshold": question.threshold,
                    "limit": question.limit,
                    "members": list(question.members),
                }
            )
            arrays = to_record(question.arrays)
            job = Assignment(node_id)
            yield self._dispatcher.outbox.message(Kind.UNMASK, arrays, config, job)

    def _end(self, outcome: SumEnd) -> None:
        for node_id in outcome.members:
            del self._sums[node_id]
        self._ended.append(outcome)
        if outcome.reason and outcome.reason not in self._told:
            self._told.add(outcome.reason)
            logger.warning(
                "A secure sum of %d updates was given up: %s (more of this kind are only counted). "
                "Its nodes train again.",
                len(outcome.members),
                outcome.reason,
            )
