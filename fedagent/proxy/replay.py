"""What a run on a real fleet does when it goes on: what was logged once more, and nothing twice.

The new process has the state of a checkpoint. What nodes sent after it was logged before it
counted, and goes through the same loop again: the same updates, in the same order, on the same
versions. What was still in flight then has died with the old process, as its messages are those of
a Flower run that is over: it ends as expired(interrupted), and its nodes get new work.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter

from flwr.app import Message

from fedagent.errors import CheckpointError
from fedagent.proxy.checkpointing import Event
from fedagent.proxy.composer import Composer
from fedagent.proxy.conduct import overdue
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import INTERRUPTED, Ending
from fedagent.proxy.evaluations import Evaluations
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.unmasking import Unmasking
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Kind

TakeIn = Callable[[list[Message]], RunEnd | None]


class Replay:
    """Goes through the log of a run.

    Parameters
    ----------
    dispatcher, evaluations, unmasking : of the run, as its checkpoint says.
    composer : says which model a node gets.
    options : of which the scheduler hears again of the jobs that it gave out.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        composer: Composer,
        evaluations: Evaluations,
        unmasking: Unmasking,
        options: AsyncOptions,
    ) -> None:
        self._dispatcher, self._composer = dispatcher, composer
        self._evaluations, self._unmasking = evaluations, unmasking
        self._scheduler = options.scheduler

    def play(self, events: Iterable[Event], take_in: TakeIn) -> None:
        """Let all happen again; `take_in` is what the loop does with replies.

        Raises
        ------
        CheckpointError
            If a job started from a version that does not come out again.
        """
        for event in events:
            self._expire(event)
            self._dispatcher.clock.go_on(event.now_s)
            if event.nodes is not None:
                self._dispatcher.see(event.nodes)
            self._dispatcher.slots.num_heard = event.num_heard
            if take_in(event.replies) is not None:
                break
            for outcome in event.sums:
                self._unmasking.settle_again(outcome)
                take_in([])
            for dispatch, has_own_base in event.sent:
                self._send_again(dispatch, has_own_base)
        self._interrupt()

    def _send_again(self, dispatch: Dispatch, has_own_base: bool) -> None:
        dispatcher, statistics = self._dispatcher, self._dispatcher.statistics
        if dispatch.version != statistics.version:
            raise CheckpointError(
                f"The log of the run tells of a job that started from version {dispatch.version}, "
                f"where version {statistics.version} came out now, so it cannot go on from there: "
                "delete the .log files beside the checkpoints to go on without them."
            )
        base = self._composer.own_model(dispatch.node_id) if has_own_base else None
        base = dispatcher.codecs.again(dispatch, base)
        self._scheduler.plan(dispatch.node_id, dispatch.sent_at_s)
        dispatcher.jobs.build(dispatch.node_id, dispatch.token, base)
        dispatcher.jobs.send(dispatch.node_id, dispatch.token)
        dispatcher.membership.take(dispatch.node_id)
        statistics.dispatched(dispatch.kind, dispatch.bytes_down)
        dispatcher.ledger.open(dispatch, base)

    def _expire(self, event: Event) -> None:
        """End jobs that nobody had heard of in time before `event`: their nodes may get others."""
        answered = {reply.metadata.reply_to_message_id for reply in event.replies}
        jobs = (d for d in self._dispatcher.ledger.in_flight() if d.kind is Kind.TRAIN)
        late = [d for d in jobs if d.deadline_s <= event.now_s and d.message_id not in answered]
        for dispatch in sorted(late, key=attrgetter("deadline_s")):
            self._dispatcher.clock.go_on(dispatch.deadline_s)
            self._close(dispatch, overdue(dispatch))

    def _close(self, dispatch: Dispatch, ending: Ending) -> None:
        """End a dispatch that is in flight; its node is free, as no late reply will come."""
        self._dispatcher.close(dispatch, ending)
        now_s = self._dispatcher.statistics.now_s
        self._dispatcher.membership.release(dispatch.node_id, now_s)

    def _interrupt(self) -> None:
        """End what was in flight, and wait for nothing that was: no reply will ever come."""
        ledger, membership = self._dispatcher.ledger, self._dispatcher.membership
        now_s = self._dispatcher.statistics.now_s
        for dispatch in list(ledger.in_flight()):
            self._close(dispatch, INTERRUPTED)
            if dispatch.kind is Kind.EVALUATE:
                self._evaluations.settle(dispatch)
        self._unmasking.give_up(INTERRUPTED.reason)
        self._dispatcher.codecs.forget()
        for message_id in list(ledger.awaited()):
            if late := ledger.late(message_id):
                membership.release(late.node_id, now_s, is_late=True)
