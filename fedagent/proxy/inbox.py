"""What comes back: a reply becomes an update that the rule takes, or ends its dispatch."""

from dataclasses import dataclass, replace

from flwr.app import Message, MetricRecord

from fedagent.admission.sealed import kept_update
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import Ending
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.scheduling import Observation
from fedagent.update import Dispatch, Outcome, Rejection, Update
from fedagent.wire.records import payload_bytes


@dataclass(slots=True, eq=False)
class Received:
    """An update that passed the gate and that the rule wants.

    Attributes
    ----------
    dispatch : the job behind it.
    update : for the rule; whoever holds it holds the memory of a model.
    applied : how the dispatch ends once the rule has it.
    """

    dispatch: Dispatch
    update: Update
    applied: Ending


class Inbox:
    """Reads replies to train dispatches, and ends those that bring nothing for the model."""

    def __init__(
        self, options: AsyncOptions, dispatcher: Dispatcher, versions: Versions, rule: Rule
    ) -> None:
        self._admission = options.admission
        self._robust, self._keeps_updates = options.robust, options.secure is not None
        self._dispatcher, self._versions, self._rule = dispatcher, versions, rule

    def read(self, reply: Message) -> Received | None:
        """Return the update in a reply; None if it was refused, or answers nothing in flight."""
        dispatch = self._dispatcher.ledger.get(reply.metadata.reply_to_message_id)
        if dispatch is None:
            return None
        num_bytes = 0 if reply.has_error() else payload_bytes(reply.content)
        self._dispatcher.codecs.heard(reply, dispatch)
        update = self._admit(reply, dispatch)
        if isinstance(update, Rejection):
            self._dispatcher.close(dispatch, Ending.by(update, num_bytes))
            return None
        observation = _observation(update, dispatch.bytes_down + num_bytes)
        judged = self._judged(update)
        if isinstance(judged, Rejection):
            observation = replace(observation, is_used=False)
            self._dispatcher.close(dispatch, Ending.by(judged, num_bytes, observation))
            return None
        update = judged
        self._dispatcher.conduct.look(update)
        discount = self._rule.discount(update.staleness)
        applied = Ending(
            Outcome.APPLIED,
            detail=_why_nothing(update, discount),
            received_bytes=num_bytes,
            observation=observation,
            discount=discount,
            weight=self._rule.influence(update),
        )
        return Received(dispatch, update, applied)

    def _admit(self, reply: Message, dispatch: Dispatch) -> Update | Rejection:
        """Turn a reply into an update, or refuse it."""
        ledger = self._dispatcher.ledger
        if self._keeps_updates:
            staleness, now_s = ledger.staleness(dispatch), self._dispatcher.statistics.now_s
            begun_s = self._dispatcher.begun_s(dispatch)
            return kept_update(self._admission, reply, dispatch, staleness, now_s, begun_s)
        base = ledger.base(dispatch)
        return self._admission.check(
            reply,
            dispatch,
            self._versions.model.spec,
            base.vector,
            ledger.staleness(dispatch, self._rule.version_for(dispatch.node_id)),
            self._dispatcher.statistics.now_s,
            base.carried,
            self._dispatcher.begun_s(dispatch),
        )

    def _judged(self, update: Update) -> Update | Rejection:
        """Let the rule, then the run's options, refuse or change an update."""
        if (refusal := self._rule.rejection(update)) is not None:
            return refusal
        judged = self._robust.gate.judge(update, self._versions.model)
        if isinstance(judged, Rejection):
            return judged
        if judged.num_examples != update.num_examples:  # whoever weighs by metrics hears of it
            told = {**judged.metrics, self._admission.weighted_by_key: judged.num_examples}
            judged = replace(judged, metrics=MetricRecord(told))
        weight = self._rule.influence(judged)  # which filters may have lowered
        return self._dispatcher.slots.over_its_share(update.node_id, weight) or judged


def _why_nothing(update: Update, discount: float) -> str:
    """Return why an update counts nothing, or an empty string."""
    if discount == 0.0:
        return "weight 0"
    return "no change" if update.largest_change == 0.0 and len(update.delta) else ""


def _observation(update: Update, num_bytes: int) -> Observation:
    return Observation(
        update.node_id,
        update.local_steps,
        update.duration_s,
        update.staleness,
        update.num_examples,
        update.metrics,
        num_bytes,
    )
