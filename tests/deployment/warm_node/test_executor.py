"""The SuperExec's side: which warm process gets a task."""

import logging
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from types import SimpleNamespace
from typing import ClassVar

import pytest

from fedagent import _flower
from fedagent.deployment.warm_node import executor as executor_module
from fedagent.deployment.warm_node.programs import TaskBegun
from fedagent.process import watching


def spec(task_id, task_type="flwr-clientapp", fab_hash="f" * 64):
    return SimpleNamespace(task_id=task_id, task_type=task_type, fab_hash=fab_hash)


class FakeWarm:
    """Stands in for a warm process; `dead` makes it refuse what it is given."""

    made: ClassVar[list["FakeWarm"]] = []
    is_alive, process_id = True, -1

    def __init__(self, arguments):
        self.requests, self.end_of_pipe = Pipe()
        self.tasks, self.given, self.dead, self.ended = set(), [], False, False
        FakeWarm.made.append(self)

    def give(self, task):
        if self.dead:
            raise BrokenPipeError
        self.given.append(task.task_id)
        self.tasks.add(task.task_id)

    def end(self):
        self.ended = True
        self.requests.close()


@pytest.fixture
def warm_executor(monkeypatch):
    FakeWarm.made = []
    monkeypatch.setattr(executor_module, "WarmProcessHandle", FakeWarm)
    link, end = Pipe()
    yield executor_module.WarmExecutor(link, []), end
    end.close()


def test_the_first_app_gets_the_process_that_is_warm_already(warm_executor):
    executor, _ = warm_executor
    executor.launch(spec(1))
    executor.launch(spec(2))
    assert [process.given for process in FakeWarm.made] == [[1, 2]]


def test_every_app_has_a_process_of_its_own_and_the_two_latest_stay(warm_executor):
    executor, _ = warm_executor
    for task_id, fab_hash in enumerate(["a", "b", "a", "c"]):
        executor.launch(spec(task_id, fab_hash=fab_hash))
    assert [process.given for process in FakeWarm.made] == [[0, 2], [1], [3]]
    assert [process.ended for process in FakeWarm.made] == [False, True, False]


def test_a_warm_process_that_died_is_replaced_and_its_tasks_are_answered_for(warm_executor):
    executor, end = warm_executor
    executor.launch(spec(1))
    FakeWarm.made[0].dead = True
    executor.launch(spec(2))
    assert FakeWarm.made[1].given == [2]
    assert end.recv() == (1, True)


def test_the_death_of_a_warm_process_is_noticed_while_nothing_happens(warm_executor):
    executor, end = warm_executor
    executor.launch(spec(1))
    FakeWarm.made[0].end_of_pipe.close()
    executor.pause(0.1)
    assert end.recv() == (1, True)


def test_the_supernode_hears_how_a_task_ended(warm_executor):
    executor, end = warm_executor
    executor.launch(spec(1))
    FakeWarm.made[0].end_of_pipe.send((1, False))
    executor.pause(0.1)
    assert end.recv() == (1, False)
    assert FakeWarm.made[0].tasks == set()


def test_a_task_cuts_the_pause_short(warm_executor):
    executor, end = warm_executor
    end.send("task")
    begin_s = time.monotonic()
    executor.pause(30.0)
    assert time.monotonic() - begin_s < 10.0


def test_tasks_that_are_no_client_apps_start_as_flower_starts_them(warm_executor, monkeypatch):
    executor, _ = warm_executor
    cold = []
    monkeypatch.setattr(_flower, "launch_cold", cold.append)
    executor.launch(spec(1, task_type="flwr-agentapp"))
    assert [task.task_id for task in cold] == [1]
    assert FakeWarm.made[0].given == []


BUSY, IDLE = "while True: pass", "import time; time.sleep(1000)"


@pytest.fixture
def begun(monkeypatch):
    """Begin a task in a process of its own; return the executor, its link's end and the process."""
    FakeWarm.made = []
    monkeypatch.setattr(executor_module, "WarmProcessHandle", FakeWarm)
    processes, ends = [], []

    def begin(program, job_limit_s, has_begun=True):
        link, end = Pipe()
        executor = executor_module.WarmExecutor(link, [], job_limit_s)
        process = subprocess.Popen([sys.executable, "-c", program], process_group=0)
        processes.append(process), ends.append(end)
        FakeWarm.made[-1].process_id = process.pid
        executor.launch(spec(1))
        if has_begun:
            FakeWarm.made[-1].end_of_pipe.send(TaskBegun(1, process.pid))
        return executor, process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def pause_until(executor, condition, timeout_s=120):
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s
        executor.pause(0.1)


@pytest.mark.parametrize("program", [BUSY, IDLE])
def test_a_task_is_ended_at_the_limit_and_the_log_says_so(begun, program, caplog):
    executor, process = begun(program, 0.5)
    with caplog.at_level(logging.WARNING, "flwr"):
        pause_until(executor, lambda: process.poll() is not None)
    assert (
        f"Task 1 in process {process.pid}: the job took longer than --job-limit=0.5"
        in (caplog.messages)[0]
    )


def test_without_a_limit_only_a_task_that_does_not_compute_is_ended(begun, monkeypatch):
    monkeypatch.setattr(watching, "IDLE_LIMIT_S", 2.0)
    monkeypatch.setattr(watching, "_IDLE_CPU_S", 0.05)
    busy_executor, busy = begun(BUSY, None)
    idle_executor, idle = begun(IDLE, None)

    def is_ended():
        busy_executor.pause(0.05)
        return idle.poll() is not None

    pause_until(idle_executor, is_ended)
    assert busy.poll() is None


def test_a_warm_process_that_hangs_before_it_begins_a_task_is_ended(begun, monkeypatch):
    monkeypatch.setattr(watching, "IDLE_LIMIT_S", 2.0)
    monkeypatch.setattr(watching, "_IDLE_CPU_S", 0.05)
    executor, process = begun(IDLE, 0.5, has_begun=False)
    begun_s = time.monotonic()
    pause_until(executor, lambda: process.poll() is not None)
    assert time.monotonic() - begun_s > 1.5, "the limit is for what it does for the task"


def test_a_long_task_is_named_in_a_line(begun, monkeypatch, caplog):
    monkeypatch.setattr(watching, "NOTICE_S", 0.3)
    executor, process = begun(IDLE, None)
    with caplog.at_level(logging.WARNING, "flwr"):
        pause_until(executor, lambda: caplog.messages)
    assert "No answer from task 1 for " in caplog.messages[0]
    assert f"process {process.pid} " in caplog.messages[0]


def test_a_task_that_has_ended_is_watched_no_more(begun):
    executor, process = begun(IDLE, 0.5)
    FakeWarm.made[-1].end_of_pipe.send((1, False))
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        executor.pause(0.1)
    assert process.poll() is None


def test_a_warm_process_that_died_while_another_holds_its_pipe_is_replaced(warm_executor):
    executor, end = warm_executor
    executor.launch(spec(1))
    FakeWarm.made[0].is_alive = False
    executor.pause(1.5)
    assert end.poll(60.0)
    assert end.recv() == (1, True)
    executor.launch(spec(2))
    assert FakeWarm.made[1].given == [2]


@pytest.mark.parametrize("signal", ["SIGSTOP", "SIGTERM"])
def test_a_warm_process_that_hangs_is_ended_all_the_same(signal, monkeypatch):
    monkeypatch.setattr(executor_module, "_PATIENCE_S", 0.2)
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"os.kill(os.getpid(), signal.{signal}); time.sleep(1000)"
    )
    monkeypatch.setattr(
        executor_module,
        "start_with",
        lambda module, end, *_: subprocess.Popen([sys.executable, "-c", program]),
    )
    process = executor_module.WarmProcessHandle([])
    assert process.is_alive
    process.end()
    assert not process.is_alive
