"""Going on from a node's own model while its last updates are under way."""

from typing import cast

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.client.mods.differences import changes_of, moved
from fedagent.client.mods.memory import Arrays, keep, recall
from fedagent.client.request import config_in, model_in
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record

_KEPT = "own-delta-"


def continue_locally_mod(
    message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    r"""Go on from this node's own model while the proxy has not applied its last updates.

        y_0 = x + sum of Delta_j, j in U         x: the dispatched model
        y   = B_k local steps from y_0
        reply x + (y - y_0), so that             Delta = y - y_0

    U are this node's earlier jobs whose updates x does not hold: sent before this one, and neither
    applied nor refused when it left the proxy, which names them in the job
    (``keys.UNAPPLIED``). A reply holds only what its own job learned; the part of y_0 - x that
    other jobs learned is in their replies. So nothing is applied twice, and what was refused or
    lost is forgotten with the next job. Without such names, as from a proxy that does not
    prefetch, the job is done as it is. Integer buffers go on from x.

    Memory: one model per name, in the node's state.
    """
    if message.metadata.message_type != Kind.TRAIN:
        return call_next(message, context)
    _, config = config_in(message)
    if keys.UNAPPLIED not in config:
        return call_next(message, context)
    own = recall(context, _KEPT, cast(list[str], config[keys.UNAPPLIED]))
    name, record = model_in(message)
    dispatched = from_record(record)
    start = _sum(dispatched, own)
    if own:
        message.content[name] = to_record(start)
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = model_in(reply)
    trained = from_record(record)
    delta = changes_of(start, trained)
    keep(context, _KEPT + str(config[keys.TOKEN]), to_record(delta))
    if own:
        reply.content[name] = to_record(moved(dispatched, start, trained))
    return reply


def _sum(model: Arrays, deltas: list[Arrays]) -> Arrays:
    """Return the model with all deltas added, in a fixed order: it decides the last bits."""
    total = dict(model)
    for delta in deltas:
        total |= {name: total[name] + change for name, change in delta.items()}
    return total
