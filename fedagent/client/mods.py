"""Flower mods that a rule may need on its clients; `ClientSpec.mods` names them."""

from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.errors import FedagentError
from fedagent.model import NDArray
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record

_AREA = "area-sent-"
_OWN = "own-delta-"


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
    config = message.content.config_records.get("config", ConfigRecord())
    if message.metadata.message_type != Kind.TRAIN or keys.UNAPPLIED not in config:
        return call_next(message, context)
    own = _own_deltas(context, cast(list[str], config[keys.UNAPPLIED]))
    name, record = next(iter(message.content.array_records.items()))
    dispatched = from_record(record)
    start = _sum(dispatched, own)
    if own:
        message.content[name] = to_record(start)
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = next(iter(reply.content.array_records.items()))
    trained = from_record(record)
    delta = {k: y - start[k] for k, y in trained.items() if y.dtype.kind == "f"}
    context.state[_OWN + str(config[keys.TOKEN])] = to_record(delta)
    if own:
        reply.content[name] = to_record(_moved(dispatched, start, trained))
    return reply


def _own_deltas(context: Context, unapplied: list[str]) -> list[dict[str, NDArray]]:
    """Return what this node learned in the `unapplied` jobs, and forget all other jobs."""
    wanted = [f"{_OWN}{token}" for token in unapplied]
    for key in [k for k in context.state if k.startswith(_OWN) and k not in wanted]:
        del context.state[key]
    return [from_record(context.state.array_records[k]) for k in wanted if k in context.state]


def _sum(model: dict[str, NDArray], deltas: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    """Return the model with all deltas added, in a fixed order: it decides the last bits."""
    total = dict(model)
    for delta in deltas:
        total |= {name: total[name] + change for name, change in delta.items()}
    return total


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


def sparse_rows_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Send only the rows of an array that training changed, where that is less.

    Of an embedding, say, a node changes the rows of what it has seen, and its other rows equal the
    dispatched ones. In place of such an array the reply holds the changed rows under its name, and
    which they are, int32 and ascending, under the name with ``keys.ROWS`` behind it. A fedagent
    proxy puts the array together again and gets the same bytes; others get whole arrays, and so
    does whoever sent no token. Name this mod before those that change a reply.
    """
    config = message.content.config_records.get("config", ConfigRecord())
    if message.metadata.message_type != Kind.TRAIN or keys.TOKEN not in config:
        return call_next(message, context)
    dispatched = from_record(next(iter(message.content.array_records.values())))
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = next(iter(reply.content.array_records.items()))
    arrays: dict[str, NDArray] = {}
    for key, trained in from_record(record).items():
        arrays |= _changed_rows(key, dispatched[key], trained)
    reply.content[name] = to_record(arrays)
    return reply


def _changed_rows(name: str, sent: NDArray, trained: NDArray) -> dict[str, NDArray]:
    """Return what stands for `trained` in a reply; NaN counts as a change."""
    if trained.dtype.kind != "f" or trained.ndim == 0:
        return {name: trained}
    is_changed = (trained != sent).reshape(len(trained), -1).any(axis=1)
    rows = np.flatnonzero(is_changed).astype(np.int32)
    changed = trained[rows]
    if changed.nbytes + rows.nbytes >= trained.nbytes:
        return {name: trained}
    return {name: changed, name + keys.ROWS: rows}


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
