"""What a Flower strategy sees of a fleet, and what it writes for the nodes of a round.

A strategy samples nodes and writes a message for each. Who works is the scheduler's choice here, so
the messages are not sent: what is in them goes into the messages of the nodes that work.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fedagent._flower import Run, empty_run

_MOST_SHOWN = 1000  # a strategy may write a message for each of them, at some 10 us a message


class Cohort(Grid):
    """The nodes that a strategy may sample from. Nothing is ever sent to them.

    Parameters
    ----------
    node_ids : of connected nodes; the first thousand are shown.
    wanted : the least number of nodes that is shown. A strategy that finds fewer than it wants
        waits for more in a loop of its own, which no simulated clock would ever end.
    """

    def __init__(self, node_ids: Iterable[int], wanted: int) -> None:
        shown = list(islice(node_ids, max(_MOST_SHOWN, wanted)))
        known = set(shown)
        invented = (i for i in range(1, wanted + len(shown) + 1) if i not in known)
        self._node_ids = list(chain(shown, islice(invented, max(0, wanted - len(shown)))))

    def set_run(self, run: Run) -> None:
        """Ignore the run."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return empty_run(0)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the cohort."""
        return list(self._node_ids)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Raise: a cohort sends nothing."""
        raise RuntimeError(
            "A strategy's configure_train and configure_evaluate must not talk to nodes: fedagent "
            "sends its messages. Return them."
        )

    push_messages = pull_messages = send_and_receive = create_message  # type: ignore[assignment]


class Instructions:
    """What a strategy's messages tell the nodes of one round.

    A node that a message was written for gets what is in it; another node what is in the next of
    the round's messages, in turn.

    Parameters
    ----------
    messages : what ``configure_train`` or ``configure_evaluate`` returned.
    arrays : the model that the strategy was given; a message that holds another record under its
        name is taken at its word.
    config_key : name of the record in which a job's own entries (its token, its steps) stay.
    """

    def __init__(self, messages: Iterable[Message], arrays: ArrayRecord, config_key: str) -> None:
        self._messages: Sequence[Message] = list(messages)
        self._for_node = {m.metadata.dst_node_id: m for m in self._messages}
        self._arrays, self._config_key = arrays, config_key
        self._turn = 0

    def __len__(self) -> int:
        return len(self._messages)

    def _for(self, node_id: int) -> Message | None:
        if node_id in self._for_node or not self._messages:
            return self._for_node.get(node_id)
        self._turn += 1
        return self._messages[(self._turn - 1) % len(self._messages)]

    def complete(self, message: Message, config: ConfigRecord) -> None:
        """Put into the message of a job what its node is told, `config` where that is nothing."""
        told = self._for(message.metadata.dst_node_id)
        of_the_job = message.content[self._config_key]
        records = {self._config_key: config, **(told.content if told else {})}
        for name, record in records.items():
            if record is not self._arrays:
                message.content[name] = record.copy()
        if isinstance(settings := message.content[self._config_key], ConfigRecord):
            settings.update(of_the_job)  # type: ignore[arg-type]
        if told is not None:
            message.metadata.message_type = told.metadata.message_type
