"""What nodes of a real fleet say of themselves when they are asked, and how fast they turn out.

Flower knows an id of every node. What a device class is made of comes with the answer to a *query*
message: ``partition-id``, ``num-examples``, ``has-accelerator`` from a `fedagent.client` app, or
whatever numbers the query function of a ClientApp returns as metrics. ``latency-s`` is how long the
first answer took, which includes starting the ClientApp, and ``seconds-per-step`` is measured.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedagent.wire.records import records_of

logger = logging.getLogger("flwr.fedagent")

_TTL_S = 600.0
_PATIENCE_S = 60.0


class NodeInfo:
    """Asks every newcomer once; a ClientApp without a query function stays unknown.

    Parameters
    ----------
    grid : where nodes are asked.
    is_wanted : whether anybody reads the answers; otherwise nobody is asked.
    """

    UNSAVED: ClassVar = ("_asked",)

    def __init__(self, grid: Grid, is_wanted: bool) -> None:
        self._grid, self._is_wanted = grid, is_wanted
        self._known: dict[int, dict[str, float]] = {}
        self._asked: dict[str, tuple[int, float]] = {}

    def meet(self, node_ids: Iterable[int], now_s: float) -> Iterable[int]:
        """Ask newcomers, forget who has left, and return who may be given work.

        That is who has answered, or had a minute to: a job of a node's first minute should suit it
        too. Whoever could not be asked is asked at the next look.
        """
        if not self._is_wanted:
            return node_ids
        present = list(node_ids)
        unasked = {n for n in present if n not in self._known and not self._ask(n, now_s)}
        self._known = {n: self._known.get(n, {}) for n in present if n not in unasked}
        asked = self._asked.values()
        silent = unasked | {n for n, at_s in asked if now_s < at_s + _PATIENCE_S}
        return [node_id for node_id in present if node_id not in silent]

    def _ask(self, node_id: int, now_s: float) -> bool:
        """Ask a node what it is, and say whether that could be done.

        A SuperLink that dies in the middle of a message is an error of Flower's, and no end of the
        run.
        """
        message = Message(RecordDict(), node_id, "query", ttl=_TTL_S)
        try:
            message_ids = list(self._grid.push_messages([message]))
        except Exception as error:
            logger.warning("Node %d cannot be asked what it is, and waits: %r", node_id, error)
            return False
        self._asked |= {message_id: (node_id, now_s) for message_id in message_ids if message_id}
        return True

    def after_restore(self) -> None:
        """Ask those again whose answer has not come: it would come to another process."""
        self._known = {node_id: said for node_id, said in self._known.items() if said}

    @property
    def awaited(self) -> Collection[str]:
        """Ids of the messages that have no answer yet."""
        return self._asked.keys()

    def take(self, replies: Iterable[Message], now_s: float) -> list[Message]:
        """Keep the answers among `replies`; return the others."""
        return [reply for reply in replies if not self._is_answer(reply, now_s)]

    def observe(self, node_id: int, duration_s: float, local_steps: int | None) -> None:
        """Learn how long a node took for so many steps."""
        if local_steps and node_id in self._known:
            self._known[node_id]["seconds-per-step"] = duration_s / local_steps

    def of(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node by now, name -> number."""
        return self._known.get(node_id, {})

    def _is_answer(self, reply: Message, now_s: float) -> bool:
        asked = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if asked is None:
            return False
        node_id, asked_at_s = asked
        if reply.has_error():
            logger.debug("Node %d does not say what it is: %s", node_id, reply.error)
            return True
        said = self._known.setdefault(node_id, {})
        for record in records_of(reply.content, MetricRecord).values():
            said.update({k: float(v) for k, v in record.items() if isinstance(v, int | float)})
        said["latency-s"] = now_s - asked_at_s
        return True
