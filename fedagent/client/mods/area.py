"""The client's half of AREA: sending differences to what the proxy holds of this node."""

from typing import cast

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.client.mods.differences import moved
from fedagent.client.mods.memory import Arrays, keep, recall
from fedagent.client.request import config_in, model_in
from fedagent.errors import FedagentError
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record

_KEPT = "area-sent-"


def area_difference_mod(
    message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Answer such that Delta = y - (the last y of this node that the proxy applied), for `AREA`.

    A reply holds a model, x + Delta, where x is the dispatched one. What was sent is remembered in
    the node's state under the number of its updates that were applied before; the next job says
    how many are now, so a reply that was lost or refused is forgotten. While none was applied the
    whole model is sent.

    Raises
    ------
    FedagentError
        If the node has no memory of what the proxy applied: an error reply, which changes nothing.
    """
    if message.metadata.message_type != Kind.TRAIN:
        return call_next(message, context)
    dispatched = from_record(model_in(message)[1])
    num_applied = _num_applied(message)
    last = _last_sent(context, num_applied)
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = model_in(reply)
    keep(context, f"{_KEPT}{num_applied + 1}", record)
    if last is not None:
        reply.content[name] = to_record(moved(dispatched, last, from_record(record)))
    return reply


def _num_applied(message: Message) -> int:
    _, config = config_in(message)
    if keys.NUM_APPLIED not in config:
        raise FedagentError(
            f"The job names no {keys.NUM_APPLIED!r}, so this node cannot know which of its models "
            "the proxy holds: area_difference_mod works with fedagent.rules.AREA only."
        )
    return cast(int, config[keys.NUM_APPLIED])


def _last_sent(context: Context, num_applied: int) -> Arrays | None:
    """Return what the proxy holds of this node, and forget everything else."""
    kept = recall(context, _KEPT, [str(num_applied)])
    if num_applied == 0:
        return None
    if not kept:
        raise FedagentError(
            f"The proxy holds update {num_applied} of node {context.node_id}, which has lost its "
            "memory of it; reconnect the node under a new id."
        )
    return kept[0]
