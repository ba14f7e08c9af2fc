"""Clients' code, which may do anything, in a process that must go on."""

import logging
import os
import signal
import threading
import traceback
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flwr.app import Context, Message

from fedagent.formatting import described, place_of, printable
from fedagent.process.settings import settings_restored

logger = logging.getLogger("flwr.fedagent")


class ClientCodeError(Exception):
    """What a client's code has raised and where, in words that are safe to pass on."""


def safe_traceback(error: BaseException) -> str:
    """Return where client code raised, and what, with every text of its own cut and printable."""
    lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    return "\n".join([*map(printable, lines), described(error)])


@contextmanager
def contained() -> Iterator[None]:
    """Keep what a client's code does to its process from whatever comes after it.

    Settings that it changes are put back. A copy of the process that it makes, and that comes out
    of here too, ends: only one of them is the process that was asked.

    Raises
    ------
    ClientCodeError
        If the code raises, ``SystemExit`` and other exceptions that are no ``Exception`` included.
        What a signal's handler raises meanwhile (Ctrl-C) is not the client's: it passes.
    """
    process_id = os.getpid()
    try:
        with signals_noted() as signal_came, settings_restored():
            yield
    except BaseException as error:
        if os.getpid() != process_id:
            os._exit(1)
        if not isinstance(error, Exception) and signal_came():
            raise
        logger.debug("A client's code raised", exc_info=True)
        raise ClientCodeError(f"{described(error)} ({place_of(error)})") from error
    if os.getpid() != process_id:
        os._exit(0)


def contained_reply(
    app: Callable[[Message, Context], Message], message: Message, context: Context
) -> Message:
    """Return a ClientApp's reply; see `contained`.

    Raises
    ------
    ClientCodeError
        If it raises, or returns anything but a reply to the message.
    """
    with contained():
        reply = app(message, context)
        if isinstance(reply, Message):
            _ = reply.error if reply.has_error() else reply.content  # which one of them may lack
    if not isinstance(reply, Message):
        what = "None" if reply is None else f"a value of type {printable(type(reply).__name__)}"
        raise ClientCodeError(
            f"the ClientApp's function for {message.metadata.message_type!r} returned {what}, not "
            "a Message: it must return Message(content, reply_to=message)"
        )
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ClientCodeError(
            "the ClientApp returned what is not a reply to its message: it must return "
            "Message(content, reply_to=message)"
        )
    return reply


@contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Yield a question: has a handler of SIGINT or SIGTERM run? They do what they did before."""
    has_come = False
    noted: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # in others none of them ever runs
        handlers = ((number, getsignal(number)) for number in _ENDING)
        noted = {number: handler for number, handler in handlers if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        noted[number](number, frame)

    for number in noted:
        set_handler(number, note)
    try:
        yield lambda: has_come
    finally:
        for number, handler in noted.items():
            if getsignal(number) is note:  # not if the handler has put another one there
                set_handler(number, handler)


_ENDING = (signal.SIGINT, signal.SIGTERM)
# From `_signal`: what `signal` makes of it looks through enums, for 14 us with every job.
