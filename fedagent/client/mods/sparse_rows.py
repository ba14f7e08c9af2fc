"""Sending only the rows of an array that training has changed."""

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.arrays import NDArray
from fedagent.client.request import config_in, model_in
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record
from fedagent.wire.rows import changed_rows


def sparse_rows_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Send only the rows of an array that training changed, where that is less.

    Of an embedding, say, a node changes the rows of what it has seen, and its other rows equal the
    dispatched ones. `fedagent.wire.rows` says how they travel. A fedagent proxy puts the array
    together again and gets the same bytes; a ServerApp that sent no token gets whole arrays, and so
    does `secure_mod`, which hides which rows they are. Name this mod before those that change a
    reply.
    """
    if message.metadata.message_type != Kind.TRAIN or not _are_rows_wanted(message):
        return call_next(message, context)
    dispatched = from_record(model_in(message)[1])
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    name, record = model_in(reply)
    arrays: dict[str, NDArray] = {}
    for key, trained in from_record(record).items():
        arrays |= changed_rows(key, dispatched[key], trained)
    reply.content[name] = to_record(arrays)
    return reply


def _are_rows_wanted(message: Message) -> bool:
    _, config = config_in(message)
    return keys.TOKEN in config and keys.SECURE not in config
