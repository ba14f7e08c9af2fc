"""Messages, whom they speak for, and what Flower's strategies and grids do with them."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedagent._flower.uses import IDENTITY, MESSAGE_IDS, RUNS

if TYPE_CHECKING or RUNS.is_possible:
    from flwr.supercore.run import Run as Run  # noqa: PLC0414  (exported)
else:
    Run = SimpleNamespace

DRIVER_NODE_ID = 1
"""The node id of the ServerApp (flwr.common.constant.SUPERLINK_NODE_ID)."""

aggregate_metricrecords = FedAvg().train_metrics_aggr_fn
"""FedAvg's default aggregation of metrics: Flower exports it as a default only."""


@dataclass(frozen=True)
class ErrorCode:
    """flwr.common.constant.ErrorCode, as far as a grid answers with it."""

    UNKNOWN = 0
    LOAD_CLIENT_APP_EXCEPTION = 1
    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MOD_FAILED_PRECONDITION = 6
    INVALID_FAB = 7
    CLIENT_APP_CRASHED = 8


def is_from_node(reply: Message) -> bool:
    """Return whether a node said something; else the grid answers for one it does not hear."""
    grids = ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    return not reply.has_error() or reply.error.code not in (*grids, ErrorCode.NODE_UNAVAILABLE)


def empty_run(run_id: int) -> Run:
    """Return run information without an app bundle, as an in-process grid needs it."""
    if RUNS.is_possible:
        return Run.create_empty(run_id)
    fields: dict[str, Any] = {"fab_id": "", "fab_version": "", "fab_hash": ""}
    return cast(Run, SimpleNamespace(run_id=run_id, override_config={}, **fields))


def identify_process(run_id: int, node_id: int, task_id: int) -> None:
    """Let ``Message(...)`` in this process know whom it speaks for.

    Raises
    ------
    FedagentError
        If this version of Flower asks for it in another way.
    """
    IDENTITY.require()
    from flwr.supercore.task_identity import TaskIdentity  # noqa: PLC0415  (it may be gone)

    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id
    try:
        made = Message(RecordDict(), dst_node_id=node_id, message_type="query").metadata
    except RuntimeError as error:  # another part of the identity is needed
        raise IDENTITY.unsupported(str(error)) from error
    if (made.run_id, made.src_node_id) != (run_id, node_id):
        raise IDENTITY.unsupported("Message() reads it from elsewhere")


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as Flower's own grids do.

    Raises
    ------
    FedagentError
        If this version of Flower keeps it elsewhere.
    """
    message.metadata.__dict__["_message_id"] = message_id
    if message.metadata.message_id != message_id:
        raise MESSAGE_IDS.unsupported("a message does not have the id that it was given")


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with the same metadata and other content."""
    copied = copy.copy(message)
    copied.content = content
    return copied


def pulls_over_network(grid: Grid) -> bool:
    """Return whether a grid fetches replies from a SuperLink.

    Those of Flower's own do, but for its simulation's. Only the name tells: importing a class to
    compare with takes a second and 50 MB.
    """
    return any(
        kind.__module__.startswith("flwr.") and kind.__name__ not in ("Grid", "InMemoryGrid")
        for kind in type(grid).__mro__
    )


def failed_reply(message_id: str, code: int, reason: str) -> Message:
    """Build an error in place of the reply to a message of which only the id is at hand."""
    request = Message(RecordDict(), dst_node_id=DRIVER_NODE_ID, message_type="query")
    set_message_id(request, message_id)
    return Message(Error(code, reason), reply_to=request)


def reply_from(node_id: int, content: RecordDict) -> Message:
    """Build a training reply of `node_id` that never travelled."""
    request = Message(RecordDict(), dst_node_id=node_id, message_type="train")
    return Message(content, reply_to=request)
