"""A SuperNode and a SuperExec with our pauses and executor: fails when Flower changes."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedagent._flower import (
    ErrorCode,
    Supervision,
    expire_task,
    is_for_client_app,
    launch_accepted,
    launch_cold,
    run_superexec,
    run_supernode,
    set_message_id,
    supernode_arguments,
    why_no_warm_executor,
)
from tests._flower.message import request

# As modules: the packages have functions of the same names.
start_client_internal = importlib.import_module("flwr.supernode.start_client_internal")
run_superexec_module = importlib.import_module("flwr.supercore.superexec.run_superexec")


def test_this_flower_can_be_used_with_a_warm_executor():
    assert why_no_warm_executor() is None


def test_the_supernode_sleeps_in_the_places_that_are_replaced():
    source = inspect.getsource(start_client_internal)
    assert re.findall(r"time\.sleep\((.*)\)", source) == ["3", "0.5", "0.5"]
    assert re.findall(r"\btime\.(\w+)", source) == ["sleep"] * 3, "and uses time for nothing else"


def test_the_superexec_waits_in_one_place():
    assert re.findall(r"\btime\.(\w+)", inspect.getsource(run_superexec_module)) == ["sleep"]


@pytest.fixture
def supernode(monkeypatch):
    """Run a SuperNode whose main loop gets `run_ids` from its SuperLink, then ends."""

    def run(run_ids, **calls):
        command = importlib.import_module("flwr.supernode.cli.flower_supernode")
        state = object()
        factory = type("Factory", (), {"state": staticmethod(lambda: state)})
        pulled = iter(run_ids)
        for module, name in (
            (start_client_internal, "time"),
            (command, "start_client_internal"),
        ):
            monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
        monkeypatch.setattr(
            start_client_internal, "_pull_and_store_message", lambda **_: next(pulled)
        )

        def main_loop(**_):
            for _ in run_ids:
                if start_client_internal._pull_and_store_message() is None:
                    start_client_internal.time.sleep(3)
                else:
                    start_client_internal.time.sleep(0.5)

        monkeypatch.setattr(start_client_internal, "start_client_internal", main_loop)
        monkeypatch.setattr(  # where the command that Flower installs is found
            importlib.import_module("flwr.supernode.cli"),
            "flower_supernode",
            lambda: command.start_client_internal(state_factory=factory),
        )
        monkeypatch.setattr(sys, "argv", sys.argv)
        with pytest.raises(SystemExit):
            run_supernode(["--insecure"], Supervision(**calls))
        assert sys.argv == ["flower-supernode", "--insecure"]
        return state

    return run


def test_a_supervised_supernode_tells_of_tasks_and_waits_as_it_is_told(supernode):
    heard = []
    state = supernode(
        [None, 7, None],
        on_task=lambda: heard.append("task"),
        idle=lambda: heard.append("idle"),
        await_reply=heard.append,
    )
    assert heard == ["idle", "task", state, "idle"]


def test_the_flags_of_a_supernode_are_flowers():
    flags = supernode_arguments().parse_args(["--insecure", "--port", "7"])
    assert (flags.insecure, flags.port, flags.isolation) == (True, 7, "subprocess")


@pytest.fixture
def claimed():
    """Return a SuperNode's state with a message "m1", and its task, which has been claimed."""
    state = InMemoryNodeState(ObjectStoreFactory().store())
    message = request()
    set_message_id(message, "m1")
    state.store_message(message)
    task_id = state.create_task("flwr-clientapp", run_id=1)
    state.claim_task(task_id)
    return state, task_id


@pytest.mark.parametrize("was_pulled", [True, False])
def test_a_supernode_answers_at_once_for_a_task_whose_process_died(claimed, was_pulled):
    state, task_id = claimed
    state.activate_task(task_id)
    if was_pulled:
        state.get_messages_legacy(is_reply=False)
        state.record_message_processing_start("m1")
    assert state.get_messages_legacy(is_reply=True) == []
    expire_task(state, task_id)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert reply.metadata.reply_to_message_id == "m1"
    expire_task(state, task_id)  # which was answered: nothing happens
    assert state.get_messages_legacy(is_reply=True) == []


def test_a_task_whose_process_died_before_it_began_is_started_again(claimed):
    state, task_id = claimed
    expire_task(state, task_id)
    assert state.get_messages_legacy(is_reply=True) == []
    assert state.claim_task(task_id) is not None
    assert state.get_messages_legacy(is_reply=False)[0].metadata.message_id == "m1"


def test_the_superexec_asks_our_executor_and_waits_as_we_say(monkeypatch):
    waits = []

    def one_turn():
        executor = run_superexec_module.get_executor("subprocess", executor_config=None)
        run_superexec_module.time.sleep(1.0)
        assert executor == "ours"

    command = importlib.import_module("flwr.supercore.cli")
    for name in ("get_executor", "time"):
        monkeypatch.setattr(run_superexec_module, name, getattr(run_superexec_module, name))
    monkeypatch.setattr(command, "flower_superexec", one_turn)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit):
        run_superexec(["--insecure"], "ours", waits.append)
    assert (waits, sys.argv) == ([1.0], ["flower-superexec", "--insecure"])


def execution(task_type=TaskType.CLIENT_APP):
    return ExecutionSpec(task_type, "127.0.0.1:9", "token", True, None, False, None, True, 5, "f")


def test_only_tasks_of_client_apps_are_warm():
    assert is_for_client_app(execution())
    assert not is_for_client_app(execution(TaskType.AGENT_APP))


def test_an_executor_says_that_it_has_accepted_and_so_does_flowers(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    assert launch_cold(execution()) == launch_accepted()
    assert started[0][0] == "flwr-clientapp"


def test_a_process_that_has_to_end_says_so_and_fails():
    # In a process of its own: Flower ends it the hard way after some seconds.
    words = "from fedagent import _flower; _flower.end_process('the pipe broke')"
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the pipe broke" in done.stdout + done.stderr
