"""The only place that touches private Flower modules. Checked against flwr 1.41.0 and 1.42.0.

Every entry says why the public API is not enough; tests/test_flower_private.py fails when one of
them changes.
"""

import hashlib
import importlib
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, NoReturn, TypeVar, cast

from flwr.app import (
    DEFAULT_TTL,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)

# What all records have in common, and with it the way entries get in.
from flwr.app.message.typeddict import TypedDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

# FedAvg's default metric aggregation, so that ours is the same: not exported by Flower.
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

# `Grid.run` and `Grid.set_run` are typed with it, and only this module defines it.
from flwr.supercore.run import Run

# Message() reads the run and node ids from this process-wide class; Flower sets it before a
# ServerApp starts, and so must a simulation.
from flwr.supercore.task_identity import TaskIdentity
from packaging.version import Version

__all__ = [
    "DRIVER_NODE_ID",
    "AppBundle",
    "ErrorCode",
    "Run",
    "Supervision",
    "aggregate_metricrecords",
    "empty_run",
    "end_process",
    "entries_of",
    "expire_task",
    "failed_reply",
    "identify_process",
    "import_client_runtime",
    "is_for_client_app",
    "launch_accepted",
    "launch_cold",
    "load_installed_app",
    "pulls_over_network",
    "quick_entries",
    "record_of",
    "reply_from",
    "run_client_app",
    "run_superexec",
    "run_supernode",
    "set_message_id",
    "supernode_arguments",
    "why_no_warm_executor",
    "with_content",
]

R = TypeVar("R", RecordDict, ArrayRecord, ConfigRecord, MetricRecord)

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


def record_of(kind: type[R], entries: Mapping[str, Any]) -> R:
    """Return a record, or a message's content, of entries that are known to fit.

    ``kind(entries)`` checks each of them, and ``kind(arrays)`` builds every array anew.
    """
    record = kind()
    record.__dict__["_data"].update(entries)
    return record


def entries_of(record: RecordDict | ArrayRecord | ConfigRecord | MetricRecord) -> dict[str, Any]:
    """Return the dictionary within a record."""
    return cast(dict[str, Any], record.__dict__["_data"])


@contextmanager
def quick_entries() -> Iterator[None]:
    """Let records take in entries with Flower's checks but without building their types each time.

    ``cast(Callable[[K], None], check)`` is computed with every entry, and takes as long as all the
    rest of it.
    """

    def set_entry(self: TypedDict[Any, Any], key: Any, value: Any) -> None:
        own = self.__dict__
        own["_check_key_fn"](key)
        own["_check_value_fn"](value)
        own["_data"][key] = value

    flowers_own = vars(TypedDict)["__setitem__"]
    setattr(TypedDict, "__setitem__", set_entry)  # noqa: B010
    try:
        yield
    finally:
        setattr(TypedDict, "__setitem__", flowers_own)  # noqa: B010


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


# --- A SuperNode whose ClientApps start warm: fedagent/deployment/node.py says how it works. ---
#
# Flower has one way to start a ClientApp, a new process per message, and none to choose another:
# its executors are picked from an enumeration. The modules below are imported where they are
# used, because each takes a second.

_SUPERNODE = "flwr.supernode.start_client_internal"
_SUPERNODE_COMMAND = "flwr.supernode.cli.flower_supernode"
_SUPEREXEC = "flwr.supercore.superexec.run_superexec"
_SUPEREXEC_COMMAND = "flwr.supercore.cli.flower_superexec"
_CLIENT_APP = "flwr.supernode.runtime.run_clientapp"

_KNOWN = (Version("1.41"), Version("1.43"))
_TOUCHED = {
    _SUPERNODE: ("_pull_and_store_message", "time"),
    _SUPERNODE_COMMAND: ("flower_supernode", "_parse_args_run_supernode", "start_client_internal"),
    _SUPEREXEC: ("get_executor", "time"),
    _SUPEREXEC_COMMAND: ("flower_superexec",),
    _CLIENT_APP: ("run_clientapp", "pull_task_input", "install_from_fab", "flwr_exit"),
}


@dataclass(frozen=True)
class AppBundle:
    """The app that a message was for, and its Context without the state."""

    fab_id: str
    fab_version: str
    fab_hash: str
    context: Context


@dataclass(frozen=True)
class Supervision:
    """What a SuperNode that we started calls, in its main thread.

    Parameters
    ----------
    on_task : a task is ready to be acquired.
    idle : wait after the SuperLink had no message.
    await_reply : wait a moment for the ClientApp's reply; gets the SuperNode's state.
    """

    on_task: Callable[[], None]
    idle: Callable[[], None]
    await_reply: Callable[[Any], None]


def why_no_warm_executor() -> str | None:
    """Return why this version of Flower cannot be used with a warm executor; None if it can."""
    installed = version("flwr")
    if not _KNOWN[0] <= Version(installed) < _KNOWN[1]:
        return f"flwr {installed} is not one it was checked with ({_KNOWN[0]} up to {_KNOWN[1]})"
    for module, names in _TOUCHED.items():
        try:
            found = _module(module)
        except ImportError as error:
            return f"flwr {installed} has no {module} ({error})"
        if missing := [name for name in names if not hasattr(found, name)]:
            return f"{module} of flwr {installed} has no {', '.join(missing)}"
    return None


def supernode_arguments() -> ArgumentParser:
    """Return the parser of flower-supernode's flags."""
    return cast(ArgumentParser, _module(_SUPERNODE_COMMAND)._parse_args_run_supernode())


def run_supernode(arguments: Sequence[str], supervision: Supervision | None) -> NoReturn:
    """Be ``flower-supernode ARGUMENTS``; with `supervision`, in place of its two pauses.

    Its main loop sleeps 3 s when the SuperLink has no message and looks for the ClientApp's reply
    every 0.5 s.
    """
    if supervision is not None:
        module = _module(_SUPERNODE)
        pull, start = module._pull_and_store_message, module.start_client_internal
        states: list[Any] = []

        def pull_and_tell(*args: Any, **kwargs: Any) -> int | None:
            run_id = cast(int | None, pull(*args, **kwargs))
            if run_id is not None:
                supervision.on_task()
            return run_id

        def sleep(seconds: float) -> None:
            if seconds >= 1:
                supervision.idle()
            else:
                supervision.await_reply(states[0])

        def start_with_state(**kwargs: Any) -> None:
            states.append(kwargs["state_factory"].state())
            start(**kwargs)

        module._pull_and_store_message = pull_and_tell
        module.time = SimpleNamespace(sleep=sleep)
        _module(_SUPERNODE_COMMAND).start_client_internal = start_with_state
    sys.argv = ["flower-supernode", *arguments]
    _module(_SUPERNODE_COMMAND).flower_supernode()
    sys.exit(0)


def end_process(reason: str) -> NoReturn:
    """End a SuperNode as Flower would: handlers run, its threads end, the status is 1."""
    exits = _module("flwr.supercore.exit")
    exits.flwr_exit(exits.ExitCode.TASK_PROC_EXCEPTION, reason)
    sys.exit(1)


def expire_task(state: Any, task_id: int) -> None:
    """Tell a SuperNode now, and not after a minute without heartbeats, that a process has died.

    Its next look for a reply finds the task's token expired. A task that had not begun is started
    again; for one that had it answers with CLIENT_APP_CRASHED, if the message was handed out, and
    waits for ever if the process died just before: so the message is marked.
    """
    with state.lock_task_store, state.lock_msg_store:
        if (token := state.task_token_store.get(task_id)) is None:
            return  # it was answered
        token.active_until -= timedelta(days=1)
        task = state.task_store[task_id]
        if task.status.status == "running":
            for entry in state.msg_store.values():
                metadata = entry.message.metadata
                is_request = not metadata.reply_to_message_id and metadata.run_id == task.run_id
                if is_request and not entry.is_retrieved:
                    state.record_message_processing_start(metadata.message_id)
                    entry.is_retrieved = True


def run_superexec(
    arguments: Sequence[str], executor: Any, pause: Callable[[float], None]
) -> NoReturn:
    """Be ``flower-superexec ARGUMENTS`` with an executor and a way of waiting of our own."""
    module = _module(_SUPEREXEC)
    module.get_executor = lambda *_, **__: executor
    module.time = SimpleNamespace(sleep=pause)
    sys.argv = ["flower-superexec", *arguments]
    _module(_SUPEREXEC_COMMAND).flower_superexec()
    sys.exit(0)


def is_for_client_app(spec: Any) -> bool:
    """Return whether a task is a ClientApp's: SuperNodes can be given others."""
    return str(spec.task_type) == "flwr-clientapp"


def launch_accepted() -> Any:
    """Return what an executor answers when it has started a task."""
    return _module("flwr.supercore.superexec.executor").LaunchResult.accepted()


def launch_cold(spec: Any) -> Any:
    """Start a task as Flower does, in a new process."""
    return _module("flwr.supercore.superexec.executor").SubprocessExecutor().launch(spec)


def run_client_app(
    spec: Any, loaded: AppBundle | None, on_input: Callable[[AppBundle], None], ends: bool
) -> int:
    """Do one task in this process; return its exit status.

    Parameters
    ----------
    spec : flwr.supercore.superexec.executor.ExecutionSpec.
    loaded : the app that this process has installed and imported already.
    on_input : called with the app that the task is for, before it is loaded.
    ends : whether the process ends with the task. Otherwise Flower's way to exit, which kills the
        process after some seconds, must be kept from it.
    """
    module = _module(_CLIENT_APP)
    handlers = _module("flwr.supercore.exit.exit_handler")
    pull, install = module.pull_task_input, module.install_from_fab

    def pull_and_tell(client: Any) -> Any:
        message, context, run, fab = pull(client)
        known = Context(
            context.run_id, context.node_id, context.node_config, RecordDict(), context.run_config
        )
        on_input(AppBundle(run.fab_id, run.fab_version, fab.hash_str, known))
        return message, context, run, fab

    def install_unless_loaded(content: bytes, **kwargs: Any) -> Any:
        if loaded is None or hashlib.sha256(content).hexdigest() != loaded.fab_hash:
            return install(content, **kwargs)
        return None

    def end(code: int, **_: Any) -> NoReturn:
        handlers.trigger_exit_handlers(run_before_force_exit=True)
        handlers.trigger_exit_handlers(run_before_force_exit=False)
        sys.exit(0 if 0 <= code < 100 else 1)

    patched = {"pull_task_input": pull_and_tell, "install_from_fab": install_unless_loaded}
    patched |= {} if ends else {"flwr_exit": end}
    originals = {name: getattr(module, name) for name in patched}
    certificates = _module("flwr.supercore.tls").validate_and_resolve_root_certificates
    try:
        vars(module).update(patched)
        module.run_clientapp(
            runtime_api_address=spec.runtime_api_address,
            token=spec.token,
            insecure=spec.insecure,
            certificates=certificates(spec.root_certificates_path, spec.insecure),
            parent_pid=spec.parent_pid if ends else None,
            runtime_dependency_install=spec.runtime_dependency_install,
        )
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        vars(module).update(originals)
    return 0


def import_client_runtime() -> None:
    """Import what every task uses; most of httpx is imported by its first client."""
    _module(_CLIENT_APP)
    _module("httpx").Client().close()


def load_installed_app(bundle: AppBundle) -> ClientApp:
    """Import an app that a task has installed, as Flower would for the next one."""
    load = _module("flwr.clientapp.utils").get_load_client_app_fn(
        default_app_ref="", app_path=None, multi_app=True
    )
    return cast(ClientApp, load(bundle.fab_id, bundle.fab_version, bundle.fab_hash))


def _module(name: str) -> Any:
    return importlib.import_module(name)
