"""What the messages say that hand out jobs and ask for evaluations."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message

from fedagent import keys
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ledger import Version
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.scheduling import Assignment
from fedagent.update import Kind


class Composer:
    """Composes messages: a node's job, its own model if the rule keeps one, what it must know."""

    def __init__(
        self, options: AsyncOptions, dispatcher: Dispatcher, versions: Versions, rule: Rule
    ) -> None:
        self._options, self._dispatcher = options, dispatcher
        self._versions, self._rule = versions, rule

    def train(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return one message for every free slot and idle node that the scheduler matches."""
        messages = []
        for job in self._dispatcher.slots.assignments():
            base = self.own_model(job.node_id)
            told = config.copy()
            told.update(self._rule.job_config(job.node_id))
            if self._options.max_prefetch:
                newest = self._versions.number_for(job.node_id)
                told[keys.UNAPPLIED] = self._dispatcher.jobs.unapplied(job.node_id, newest)
            message = self._dispatcher.outbox.message(Kind.TRAIN, arrays, told, job, base)
            messages.append(message)
        return messages

    def evaluate(
        self, node_ids: Iterable[int], arrays: ArrayRecord, config: ConfigRecord
    ) -> list[Message]:
        """Return one message for each of some nodes."""
        return [
            self._dispatcher.outbox.message(
                Kind.EVALUATE, arrays, config, Assignment(node_id), self.own_model(node_id)
            )
            for node_id in node_ids
        ]

    def own_model(self, node_id: int) -> Version | None:
        """Return the model that only this node gets, if the rule keeps one for it."""
        self._rule.register_node(node_id, self._dispatcher.attributes(node_id))
        return self._versions.own(node_id)
