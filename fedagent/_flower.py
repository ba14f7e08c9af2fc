"""The only place that touches private Flower modules. Checked against flwr 1.41.0.

Every entry says why the public API is not enough; tests/test_flower_private.py fails when one of
them changes.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flwr.app import (
    DEFAULT_TTL,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid

# FedAvg's default metric aggregation, so that ours is the same: not exported by Flower.
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

# `Grid.run` and `Grid.set_run` are typed with it, and only this module defines it.
from flwr.supercore.run import Run

# Message() reads the run and node ids from this process-wide class; Flower sets it before a
# ServerApp starts, and so must a simulation.
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "DRIVER_NODE_ID",
    "ErrorCode",
    "Run",
    "aggregate_metricrecords",
    "content_of",
    "empty_run",
    "failed_reply",
    "identify_process",
    "pulls_over_network",
    "reply_from",
    "set_message_id",
    "with_content",
]

# The constructor takes metadata too, but its published overloads do not say so.
_message: Any = Message

DRIVER_NODE_ID = 1
"""The node id of the ServerApp (flwr.common.constant.SUPERLINK_NODE_ID)."""


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


def empty_run(run_id: int) -> Run:
    """Return run information without an app bundle, as an in-process grid needs it."""
    return Run.create_empty(run_id)


def identify_process(run_id: int, node_id: int, task_id: int) -> None:
    """Let ``Message(...)`` in this process know whom it speaks for."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as Flower's own grids do: there is no public setter."""
    message.metadata.__dict__["_message_id"] = message_id


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with the same metadata and other content: no public way to copy one."""
    copied = Message.__new__(Message)  # the constructor checks what is known to hold
    copied.__dict__.update(message.__dict__, _content=content)
    return copied


def content_of(records: Mapping[str, ArrayRecord | ConfigRecord | MetricRecord]) -> RecordDict:
    """Return a message's content: ``RecordDict(records)`` checks what is known to hold."""
    content = RecordDict()
    content.__dict__["_data"].update(records)
    return content


def pulls_over_network(grid: Grid) -> bool:
    """Return whether a grid fetches replies from a SuperLink: only its class tells.

    Where the class is not imported, nothing is one. Importing it takes a second and 50 MB.
    """
    module = sys.modules.get("flwr.superlink.grid.http_grid")
    return module is not None and isinstance(grid, module.HttpGrid)


def failed_reply(message_id: str, code: int, reason: str) -> Message:
    """Build an error in place of the reply to a message of which only the id is at hand."""
    metadata = Metadata(
        run_id=TaskIdentity.run_id,
        message_id="",
        src_node_id=DRIVER_NODE_ID,
        dst_node_id=DRIVER_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=DEFAULT_TTL,
        message_type="system",
    )
    return cast(Message, _message(metadata=metadata, error=Error(code, reason)))


def reply_from(node_id: int, content: RecordDict) -> Message:
    """Build a training reply of `node_id` that never travelled: the constructor wants a request."""
    metadata = Metadata(
        run_id=TaskIdentity.run_id,
        message_id="",
        src_node_id=node_id,
        dst_node_id=DRIVER_NODE_ID,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=DEFAULT_TTL,
        message_type="train",
    )
    return cast(Message, _message(metadata=metadata, content=content))
