"""The node's end of codecs: what its proxy sent is put together, what it answers is encoded.

The ConfigRecord ``keys.CODEC`` of a dispatch is the order:

============ ====================================================================================
`up`         the codec of the reply, in words; without it the reply is as it is
`seed`       of the random bits of the reply; those of the difference have the next one
`whole`      floating arrays that are carried, and travel as they are
`feedback`   what the node's residual counts; without it none is kept
`down`       the codec of differences between models; the node keeps the model that it got
`held`       the token of the job whose model the difference in this message belongs to
`tokens`     of the node's last update that was applied, and of its jobs that have not ended
`token`      of this job
============ ====================================================================================
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent._flower import ErrorCode, record_of
from fedagent.arrays import NDArray
from fedagent.client.mods.differences import is_like
from fedagent.client.mods.memory import Arrays, keep, kept, recall
from fedagent.client.request import model_in
from fedagent.model import FrozenVector, ModelSpec
from fedagent.update import Kind
from fedagent.wire.codec import Bytes, UnencodableError, decode, encode, num_bytes
from fedagent.wire.codecs import codec_of
from fedagent.wire.half import Half
from fedagent.wire.moves import difference, moved, spec_of
from fedagent.wire.npy import of_bytes, view_of
from fedagent.wire.packed import PACKED, unpack
from fedagent.wire.records import from_record, quick, records_of, to_record, views_of

_HELD, _RESIDUAL = "codec-held-", "codec-residual-"
_VECTOR = "vector"
_IN_STATE = Half("bfloat16")  # where mods have no folder, a Context carries it to every job


def codec_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let a ClientApp work with whole models while few bytes travel; see `fedagent.wire.Coding`.

    Any ClientApp may have it; `fedagent.client.build_client_app` has it always. Name it before all
    other mods. Without an order of a fedagent proxy nothing changes.

    Each job's residual is kept under its token, and a job goes on from the newest that its proxy
    names, so of an update that was refused or lost nothing is left. A difference to a model that
    the node does not hold, since it was started anew, is answered with an error, and the proxy
    sends a whole model next.
    """
    order = message.content.pop(keys.CODEC, None)
    records = records_of(message.content, ArrayRecord)
    if order is None and not any(PACKED in record for record in records.values()):
        return call_next(message, context)
    told: Mapping[str, Any] = {} if order is None else cast(ConfigRecord, order)
    name, record = model_in(message)
    if "down" in told:  # and forget what will never be named again
        recall(context, _HELD, [*told["tokens"], told.get("held", "")])
    if PACKED in record:
        message.content[name] = to_record(unpack(record))
    elif "held" in told:
        if (held := kept(context, _HELD + told["held"])) is None:
            reason = f"Node {context.node_id} does not hold the model that this one belongs to."
            return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)
        message.content[name] = to_record(_moved(record, told, held))
    record = quick(cast(ArrayRecord, message.content[name]))  # the app may empty its own
    if "down" in told:
        keep(context, _HELD + told["token"], record)
    reply = call_next(message, context)
    if not reply.has_error() and message.metadata.message_type == Kind.TRAIN:
        if "up" in told:
            _encode(reply, name, views_of(record), told, context)
        reply.content[keys.CODEC] = ConfigRecord({"understood": True})
    return reply


def _moved(record: Mapping[str, Any], told: Mapping[str, Any], held: Arrays) -> Arrays:
    """Return the model that the node holds and a difference make."""
    spec = spec_of(held, told.get("whole", ()))
    data = view_of(record[keys.ENCODED])
    codec, start = codec_of(told["down"]), FrozenVector(spec, held)
    arrays = moved(codec, spec, start, data, told["seed"] + 1)
    carried = {k: view_of(array) for k, array in record.items() if k != keys.ENCODED}
    return {s.name: (arrays | carried)[s.name] for s in spec.arrays}


def _encode(
    reply: Message, name: str, dispatched: Arrays, told: Mapping[str, Any], context: Context
) -> None:
    """Encode the model in a reply, unless it cannot be: then the gate sees it as it is."""
    records = records_of(reply.content, ArrayRecord)
    name = name if name in records or len(records) != 1 else next(iter(records))
    if name not in records or not is_like(trained := from_record(records[name]), dispatched):
        return
    spec = spec_of(dispatched, told.get("whole", ()))
    client = FrozenVector(spec, dispatched | trained)
    vector = difference(spec, client, FrozenVector(spec, dispatched))
    has_feedback, left_before = "feedback" in told, []
    if has_feedback:
        left_before = recall(context, _RESIDUAL, told["tokens"])[-1:]
        for residual in left_before:
            _add(vector, residual[_VECTOR], spec, float(told["feedback"]))
    codec = codec_of(told["up"])
    try:
        parts = encode(codec, vector, spec, told["seed"], keep_rest=has_feedback)
        left = of_bytes(encode(_IN_STATE, vector, spec, 0)) if has_feedback else None
    except UnencodableError:
        if left_before:
            keep(context, _RESIDUAL + told["token"], to_record(left_before[0]))
        return
    carried = {k: array for k, array in records[name].items() if k not in spec.offsets}
    reply.content[name] = record_of(ArrayRecord, {keys.ENCODED: of_bytes(parts), **carried})
    if left is not None:
        keep(context, _RESIDUAL + told["token"], record_of(ArrayRecord, {_VECTOR: left}))


def _add(vector: NDArray, residual: Bytes, spec: ModelSpec, weight: float) -> None:
    if len(residual) != num_bytes(_IN_STATE, spec):
        return  # it is another model's
    left = np.empty_like(vector)
    for place in decode(_IN_STATE, residual, spec, 0, left):
        vector[place] += weight * left[place]
