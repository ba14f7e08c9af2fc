"""The node's end of secure sums: its update stays with it until a sum hides it."""

import logging
from functools import lru_cache
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent._flower import ErrorCode
from fedagent.arrays import NDArray
from fedagent.client.mods.differences import is_like
from fedagent.client.mods.memory import Arrays, keep, kept, recall
from fedagent.client.request import config_in, model_in
from fedagent.model import FrozenVector
from fedagent.privacy.secure import Member, Question, Stage, UnsafeQuestionError
from fedagent.update import Kind
from fedagent.wire.moves import difference, spec_of
from fedagent.wire.records import from_record, quick, records_of, to_record

logger = logging.getLogger("flwr.fedagent")

_CHANGE = "secure-change"


def secure_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Keep what a ClientApp has trained, where its proxy asks for that, and answer its questions.

    Any ClientApp may have it; `fedagent.client.build_client_app` has it always. Name it before all
    other mods but `codec_mod`. Without an order of a fedagent proxy nothing changes.

    What is kept lies where mods keep what is large, and in the Context the seeds of keys that are
    fresh for every job. A question that an honest proxy does not ask is answered with an error; see
    `Member`.
    """
    stage = config_in(message)[1].get(keys.SECURE)
    if stage is None or message.metadata.message_type != Kind.TRAIN:
        return call_next(message, context)
    if stage != Stage.KEEP:
        return _answer(message, context)
    model_name, record = model_in(message)
    dispatched = from_record(quick(record))  # the app may empty its own
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    change = _taken_out(reply.content, model_name, dispatched)
    if change is None:
        return _refusal(message, "the reply holds no finite model like the one that was sent")
    member = Member(change)
    _remember(context, member)
    reply.content[keys.SEALED] = to_record({"keys": member.public_keys})
    return reply


def _taken_out(content: RecordDict, name: str, dispatched: Arrays) -> NDArray | None:
    """Take all arrays out of a reply; return the (P,) change that they are, if they are one."""
    records = records_of(content, ArrayRecord)
    for each in records:
        del content[each]
    name = name if name in records or len(records) != 1 else next(iter(records))
    if name not in records or not is_like(trained := from_record(records[name]), dispatched):
        return None
    spec = spec_of(dispatched, ())
    client = FrozenVector(spec, dispatched | trained)
    change = difference(spec, client, FrozenVector(spec, dispatched))
    return change if np.isfinite(change).all() else None


def _answer(message: Message, context: Context) -> Message:
    """Answer a question about the update that this node keeps."""
    name, config = config_in(message)
    change = kept(context, _CHANGE)
    if change is None or keys.KEPT not in context.state:
        return _refusal(message, "this node keeps no update: it was started anew since its job")
    member = Member.of_arrays(from_record(context.state.array_records[keys.KEPT]) | change)
    question = Question(
        Stage(int(cast(int, config[keys.SECURE]))),
        int(cast(int, config["threshold"])),
        float(cast(float, config["limit"])),
        tuple(cast(list[int], config["members"])),
        from_record(model_in(message)[1]),
    )
    if question.stage is Stage.MASK and np.abs(member.change).max() > question.limit:
        _warn_of_cut(question.limit)
    try:
        answer = member.answer(question)
    except UnsafeQuestionError as error:
        return _refusal(message, str(error))
    if question.stage is Stage.REVEAL:
        del context.state[keys.KEPT]
        recall(context, _CHANGE, [])
    else:
        _remember(context, member)
    token = ConfigRecord({keys.TOKEN: config[keys.TOKEN]})
    return Message(RecordDict({keys.SEALED: to_record(answer), name: token}), reply_to=message)


def _remember(context: Context, member: Member) -> None:
    arrays = member.to_arrays()
    keep(context, _CHANGE, to_record({"change": arrays.pop("change")}))
    context.state[keys.KEPT] = to_record(arrays)


@lru_cache
def _warn_of_cut(limit: float) -> None:
    logger.warning(
        "An update changes parameters by more than limit=%g, and they count as that much. Raise "
        "the limit of the secure sums if that is usual (this is said once).",
        limit,
    )


def _refusal(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)
