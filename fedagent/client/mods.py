"""Flower mods that a rule may need on its clients; `Client.mods` names them."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.errors import FedagentError
from fedagent.model import NDArray
from fedagent.records import from_record, to_record
from fedagent.update import Kind

_AREA = "area-sent-"


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
    dispatched = from_record(next(iter(message.content.array_records.values())))
    num_applied = _num_applied(message)
    last = _last_sent(context, num_applied)
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = next(iter(reply.content.array_records.items()))
    context.state[f"{_AREA}{num_applied + 1}"] = record
    if last is not None:
        reply.content[name] = to_record(_moved(dispatched, from_record(last), from_record(record)))
    return reply


def _num_applied(message: Message) -> int:
    config = message.content.config_records.get("config", ConfigRecord())
    if keys.NUM_APPLIED not in config:
        raise FedagentError(
            f"The job names no {keys.NUM_APPLIED!r}, so this node cannot know which of its models "
            "the proxy holds: area_difference_mod works with fedagent.rules.AREA only."
        )
    return int(config[keys.NUM_APPLIED])  # type: ignore[arg-type]


def _last_sent(context: Context, num_applied: int) -> ArrayRecord | None:
    """Return what the proxy holds of this node, and forget everything else."""
    current = f"{_AREA}{num_applied}"
    for key in [k for k in context.state if k.startswith(_AREA) and k != current]:
        del context.state[key]
    if num_applied == 0:
        return None
    if current not in context.state:
        raise FedagentError(
            f"The proxy holds update {num_applied} of node {context.node_id}, which has lost its "
            "memory of it; reconnect the node under a new id."
        )
    return context.state.array_records[current]


def _moved(
    dispatched: dict[str, NDArray], last: dict[str, NDArray], new: dict[str, NDArray]
) -> dict[str, NDArray]:
    """Return dispatched + (new - last) for floating arrays, `new` for the others."""
    return {
        name: (dispatched[name] + (y - last[name])).astype(y.dtype) if y.dtype.kind == "f" else y
        for name, y in new.items()
    }


def partition_id_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Add ``partition-id`` from the node config to the reply's metrics.

    `fedagent.mixing` numbers nodes by it, and `fedagent.Collaborative` names them in evaluations.
    A node whose config has none, and a reply without metrics, stay as they are.
    """
    reply = call_next(message, context)
    if not reply.has_error() and keys.PARTITION_ID in context.node_config:
        for metrics in reply.content.metric_records.values():
            metrics[keys.PARTITION_ID] = int(context.node_config[keys.PARTITION_ID])
    return reply
