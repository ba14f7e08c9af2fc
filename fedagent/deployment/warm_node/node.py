"""``fedagent node``: a SuperNode whose ClientApps start warm.

Flower's SuperNode starts a new process for every message, which imports everything again, and
looks for messages every 3 s, for tasks every second and for replies every half. This is the same
SuperNode, with the same flags, tokens and isolation; only what starts its ClientApps differs:

    SuperNode (Flower's)  <- HTTP ->  SuperExec (Flower's, `executor`)
          ^                               |  launch(task)
          |                               v
          +------------- HTTP ------- warm process (`server`): everything imported,
                                          forks a process per task

Between SuperNode and SuperExec there is a pipe: "task" wakes the SuperExec, and word that a task's
process has ended wakes the SuperNode, or makes it answer for one that died.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn, cast

from fedagent import _flower, keys
from fedagent.deployment.proxies import sparing_loopback
from fedagent.deployment.warm_node.idle import Idleness
from fedagent.deployment.warm_node.programs import start_with
from fedagent.process.folders import own_folder

EXECUTORS = ("auto", "fork", "reuse", "flower")
"""How ClientApps are started; see ``fedagent node --help``."""

_REPLY_PAUSE_S = 0.01


def node(arguments: Sequence[str]) -> NoReturn:
    """Run a SuperNode until it is stopped.

    Parameters
    ----------
    arguments : our own flags and those of flower-supernode.
    """
    ours, flowers = _own_arguments().parse_known_args(arguments)
    os.environ |= sparing_loopback()  # through which SuperNode, SuperExec and ClientApps talk
    if ours.executor == "flower":
        _be_flowers(flowers, ours)
    if (reason := _why_not_here(is_asked_for=ours.executor != "auto")) is not None:
        print(
            f"fedagent node: WARNING: {reason}. Falling back to Flower's own executor: every "
            "message will start a new process and import everything again. Say "
            "--executor=flower to silence this, or --executor=fork to try a version that was not "
            f"checked. {_flower.remedy()}",
            file=sys.stderr,
        )
        _be_flowers(flowers, ours)
    flags = _all_arguments().parse_args(arguments)  # --help or a wrong one ends the program here
    if "port" not in _given(flowers):
        flags.port = free_port()
        flowers = [*flowers, f"--port={flags.port}"]
    _make_room_for_mods()
    link, end = Pipe()
    executor = start_with(
        "fedagent.deployment.warm_node.executor",
        end,
        f"--executor={ours.executor}",
        *(f"--preload={module}" for module in ours.preload),
        *([] if ours.job_limit is None else [f"--job-limit={ours.job_limit}"]),
        *_superexec_arguments(flags),
    )
    supervisor = Supervisor(link, executor, Idleness(longest_s=ours.longest_idle_s))
    _flower.run_supernode(
        [*flowers, "--isolation=process"],
        _flower.Supervision(supervisor.on_task, supervisor.idle, supervisor.await_reply),
    )


class Supervisor:
    """The SuperNode's side of the pipe to its SuperExec."""

    def __init__(
        self, link: Connection, executor: "subprocess.Popen[bytes]", idleness: Idleness
    ) -> None:
        self._link = link
        self._executor = executor
        self._idleness = idleness

    def on_task(self) -> None:
        """Wake the SuperExec."""
        self._idleness.reset()
        try:
            self._link.send("task")
        except OSError:
            self._give_up()

    def idle(self) -> None:
        """Wait until the SuperLink should be asked again."""
        self._hear(None, self._idleness.next_s())

    def await_reply(self, state: Any) -> None:
        """Wait a moment for a reply; answer for a ClientApp that died."""
        self._hear(state, _REPLY_PAUSE_S)

    def _hear(self, state: Any, wait_s: float) -> None:
        try:
            while self._link.poll(wait_s):
                task_id, died = cast(tuple[int, bool], self._link.recv())
                if died and state is not None:
                    _flower.expire_task(state, task_id)
                wait_s = 0.0
        except (EOFError, OSError):
            self._give_up()

    def _give_up(self) -> NoReturn:
        status = self._executor.wait()
        _flower.end_process(
            f"The SuperExec of fedagent node ended with status {status}; its own lines above say "
            "why. Start the node again, with --executor=flower if it keeps happening."
        )


def _be_flowers(flowers: Sequence[str], ours: argparse.Namespace) -> NoReturn:
    """Run the SuperNode with Flower's own executor."""
    if ours.job_limit is not None:
        print(
            "fedagent node: WARNING: Flower's own executor ends no ClientApp: --job-limit="
            f"{ours.job_limit:g} has no effect.",
            file=sys.stderr,
        )
    _flower.run_supernode(flowers, None)


def _make_room_for_mods() -> None:
    """Name a folder for what mods keep, see `fedagent.client.mods.memory`."""
    try:
        os.environ[keys.NODE_FOLDER] = str(own_folder("fedagent-node-"))
    except OSError as error:
        print(
            f"fedagent node: WARNING: no folder for what mods keep: {error}. They keep it in "
            "Flower's Context, which is slower with large models; set TMPDIR to a folder with "
            "room.",
            file=sys.stderr,
        )


def free_port() -> int:
    """Return a port of this machine that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _why_not_here(is_asked_for: bool) -> str | None:
    if not hasattr(os, "fork"):
        return "this system cannot fork"
    return _flower.why_no_warm_executor(is_asked_for)


def _superexec_arguments(flags: argparse.Namespace) -> list[str]:
    """Return how the SuperExec reaches the SuperNode's Runtime API, as Flower would."""
    host = f"[{flags.host}]" if ":" in flags.host else flags.host
    arguments = [f"--runtime-api-address={host}:{flags.port}", f"--parent-pid={os.getpid()}"]
    if flags.ssl_certfile:
        arguments += [f"--root-certificates={flags.ssl_ca_certfile}"]
    else:
        arguments += ["--insecure"]
    if flags.superexec_auth_secret_file:
        arguments += [f"--superexec-auth-secret-file={flags.superexec_auth_secret_file}"]
    if flags.runtime_dependency_install:
        arguments += ["--allow-runtime-dependency-installation"]
    return arguments


def _given(flags: Sequence[str]) -> set[str]:
    return {flag.lstrip("-").split("=")[0] for flag in flags if flag.startswith("--")}


class _Refused(argparse.Action):
    """A flag of flower-supernode that cannot be combined with a warm executor."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        """Say what to do."""
        parser.error(
            "--isolation is chosen by fedagent node, which starts the ClientApps itself; leave it "
            "out, or run flower-supernode --isolation=... and a SuperExec of your own"
        )


def _own_arguments() -> argparse.ArgumentParser:
    return _with_own_flags(argparse.ArgumentParser(add_help=False, allow_abbrev=False))


def _all_arguments() -> argparse.ArgumentParser:
    """Return Flower's flags and ours in one parser, for --help and to refuse misspelt ones."""
    parser = _flower.supernode_arguments()
    parser.prog = "fedagent node"
    parser.description = (
        "Start a Flower SuperNode whose ClientApps start warm. Takes the flags of "
        "flower-supernode, but for --isolation."
    )
    parser.allow_abbrev = False
    parser.conflict_handler = "resolve"
    parser.set_defaults(port=None)
    return _with_own_flags(parser)


def _limit(text: str) -> float:
    """Return seconds, > 0."""
    if not (seconds := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} s is no time to work in; choose more than 0")
    return seconds


def _with_own_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_argument_group("warm ClientApps")
    group.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="auto",
        help="How a ClientApp starts. fork: a copy of a process that has imported everything. "
        "reuse: always the same process, for CUDA, which cannot be copied. flower: a new process "
        "that imports everything again. auto (default): reuse where there is CUDA, else fork; "
        "flower on a version of Flower that was not checked.",
    )
    group.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=["fedagent.client"],
        help="Import this module ahead of the first message, besides fedagent.client; repeat for "
        "more. What the app itself imports is kept from its first message on.",
    )
    group.add_argument(
        "--longest-idle-s",
        type=float,
        default=3.0,
        metavar="SECONDS",
        help="Longest pause between two questions for work while there is none (default: 3). "
        "Right after work the pauses are short.",
    )
    group.add_argument(
        "--job-limit",
        type=_limit,
        metavar="SECONDS",
        help="End a ClientApp that takes longer than this for one message, which then is a "
        "failure. Without it, one that computes may take as long as it likes, and one that has "
        "used no processor time for ten minutes is ended.",
    )
    group.add_argument("--isolation", action=_Refused, help=argparse.SUPPRESS)
    return parser
