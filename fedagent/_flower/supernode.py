"""Flower's SuperNode and SuperExec with pauses and an executor of our own.

Flower has one way to start a ClientApp, a new process per message, and none to choose another: its
executors are picked from an enumeration. `fedagent.deployment.warm_node.node` says what is made of
it. Flower's modules are imported where they are used: each takes a second.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from fedagent._flower.private_use import CHECKED_VERSIONS, installed_version, is_checked
from fedagent._flower.uses import WARM_NODE

_SUPERNODE = "flwr.supernode.start_client_internal"
_SUPERNODE_COMMAND = "flwr.supernode.cli.flower_supernode"
_SUPEREXEC = "flwr.supercore.superexec.run_superexec"
_EXECUTOR = "flwr.supercore.superexec.executor"
_EXIT = "flwr.supercore.exit"


def _module(name: str) -> Any:
    return import_module(name)


def _be(command: str, arguments: Sequence[str]) -> NoReturn:
    """Go on as one of the commands that Flower installs."""
    (entry_point,) = entry_points(group="console_scripts", name=command)
    sys.argv = [command, *arguments]
    entry_point.load()()
    sys.exit(0)


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


def why_no_warm_executor(is_asked_for: bool = False) -> str | None:
    """Return why this version of Flower should not be used with a warm executor; None if it can.

    Parameters
    ----------
    is_asked_for : whether a version that was not checked will do, if it has all the names. They do
        not tell whether Flower still does the same behind them.
    """
    if WARM_NODE.missing:
        return f"flwr {installed_version()} has no {', '.join(WARM_NODE.missing)}"
    if not is_checked() and not is_asked_for:
        checked = " and ".join(CHECKED_VERSIONS)
        return f"flwr {installed_version()} is not one it was checked with ({checked})"
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
    _be("flower-supernode", arguments)


def end_process(reason: str) -> NoReturn:
    """End a SuperNode as Flower would: handlers run, its threads end, the status is 1."""
    exits = _module(_EXIT)
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
    _be("flower-superexec", arguments)


def is_for_client_app(spec: Any) -> bool:
    """Return whether a task is a ClientApp's: SuperNodes can be given others."""
    return str(spec.task_type) == "flwr-clientapp"


def launch_accepted() -> Any:
    """Return what an executor answers when it has started a task."""
    return _module(_EXECUTOR).LaunchResult.accepted()


def launch_cold(spec: Any) -> Any:
    """Start a task as Flower does, in a new process."""
    return _module(_EXECUTOR).SubprocessExecutor().launch(spec)
