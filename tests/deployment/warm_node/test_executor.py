"""The SuperExec's side: which warm process gets a task."""

import time
from multiprocessing.connection import Pipe
from types import SimpleNamespace
from typing import ClassVar

import pytest

from fedagent import _flower
from fedagent.deployment.warm_node import executor as executor_module


def spec(task_id, task_type="flwr-clientapp", fab_hash="f" * 64):
    return SimpleNamespace(task_id=task_id, task_type=task_type, fab_hash=fab_hash)


class FakeWarm:
    """Stands in for a warm process; `dead` makes it refuse what it is given."""

    made: ClassVar[list["FakeWarm"]] = []

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
