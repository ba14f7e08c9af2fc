"""fedagent node, its SuperExec and its warm process, without a SuperLink."""

import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedagent import _flower
from fedagent._flower import AppBundle
from fedagent.deployment.warm_node import executor as executor_module
from fedagent.deployment.warm_node import node as node_module
from fedagent.deployment.warm_node import server as warm
from fedagent.deployment.warm_node.idle import Idleness
from fedagent.deployment.warm_node.node import Supervisor
from fedagent.errors import ConfigurationError

BUNDLE = AppBundle("me/app", "1.0.0", "f" * 64, Context(1, 2, {}, RecordDict(), {}))


def spec(task_id, task_type="flwr-clientapp", fab_hash="f" * 64):
    return SimpleNamespace(task_id=task_id, task_type=task_type, fab_hash=fab_hash)


# --- how long a node waits ------------------------------------------------------------------------


def test_an_idle_node_asks_ever_less_often_and_soon_again_after_work():
    idleness = Idleness(first_s=1.0, longest_s=5.0, growth=2.0)
    assert [idleness.next_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    idleness.reset()
    assert idleness.next_s() == 1.0


def test_a_node_that_would_never_ask_again_is_refused():
    with pytest.raises(ConfigurationError, match="at least"):
        Idleness(longest_s=0.0)


# --- the SuperNode's side -------------------------------------------------------------------------


@pytest.fixture
def supervised():
    link, end = Pipe()
    executor = SimpleNamespace(wait=lambda: 3)
    yield Supervisor(link, executor, Idleness(first_s=0.2, longest_s=0.2)), end
    end.close()


def test_a_task_wakes_the_superexec(supervised):
    supervisor, end = supervised
    supervisor.on_task()
    assert end.poll(1.0)
    assert end.recv() == "task"


def test_word_that_a_task_has_ended_cuts_the_wait_for_its_reply_short(supervised, monkeypatch):
    supervisor, end = supervised
    monkeypatch.setattr(node_module, "_REPLY_PAUSE_S", 30.0)
    end.send((7, False))
    begin_s = time.monotonic()
    supervisor.await_reply(state=object())  # which is not touched: nobody died
    assert time.monotonic() - begin_s < 10.0


def test_a_task_whose_process_died_is_answered_for(supervised, monkeypatch):
    supervisor, end = supervised
    expired = []
    monkeypatch.setattr(_flower, "expire_task", lambda state, task_id: expired.append(task_id))
    end.send((7, True))
    end.send((8, False))
    supervisor.await_reply(state="state")
    assert expired == [7]


def test_a_node_without_its_superexec_ends_and_says_why(supervised, monkeypatch):
    supervisor, end = supervised

    def end_process(reason):
        raise SystemExit(reason)

    monkeypatch.setattr(_flower, "end_process", end_process)
    end.close()
    for call in (supervisor.on_task, supervisor.idle, lambda: supervisor.await_reply("state")):
        with pytest.raises(SystemExit, match=r"status 3.*--executor=flower"):
            call()


# --- the command ----------------------------------------------------------------------------------


def fedagent_node(*flags):
    return subprocess.run(
        [sys.executable, "-c", "from fedagent.cli import main; main()", "node", *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_help_has_flowers_flags_and_ours():
    shown = fedagent_node("--help")
    assert shown.returncode == 0
    for flag in (
        "--superlink",
        "--root-certificates",
        "--auth-supernode-private-key",
        "--executor",
    ):
        assert flag in shown.stdout
    assert "--isolation {" not in shown.stdout


def test_isolation_is_refused_with_the_way_out():
    refused = fedagent_node("--insecure", "--isolation=process")
    assert refused.returncode == 2
    assert "run flower-supernode --isolation" in refused.stderr


def test_a_misspelt_flag_is_refused():
    refused = fedagent_node("--insecurely")
    assert refused.returncode == 2
    assert "--insecurely" in refused.stderr


def test_on_a_version_of_flower_that_is_not_known_flowers_own_executor_does_it(monkeypatch, capsys):
    started = []

    def run_supernode(arguments, supervision):
        started.append((arguments, supervision))
        raise SystemExit(0)

    monkeypatch.setattr(_flower, "version", lambda name: "9.9.9")
    monkeypatch.setattr(_flower, "run_supernode", run_supernode)
    with pytest.raises(SystemExit):
        node_module.node(["--insecure", "--superlink=there:9092", "--preload=json"])
    assert started == [(["--insecure", "--superlink=there:9092"], None)]
    assert "flwr 9.9.9 is not one it was checked with" in capsys.readouterr().err


def test_a_private_name_that_is_gone_is_a_reason_not_to_be_warm(monkeypatch):
    monkeypatch.setitem(_flower._TOUCHED, "flwr.supernode.start_client_internal", ("gone",))
    assert "has no gone" in _flower.why_no_warm_executor()


def test_the_superexec_reaches_the_supernode_with_its_tls_secret_and_installation():
    flags = node_module._all_arguments().parse_args(
        [
            "--host",
            "::1",
            "--port",
            "7",
            "--ssl-certfile",
            "c",
            "--ssl-keyfile",
            "k",
            "--ssl-ca-certfile",
            "a",
            "--superexec-auth-secret-file",
            "s",
            "--allow-runtime-dependency-installation",
        ]
    )
    assert node_module._superexec_arguments(flags) == [
        "--runtime-api-address=[::1]:7",
        f"--parent-pid={os.getpid()}",
        "--root-certificates=a",
        "--superexec-auth-secret-file=s",
        "--allow-runtime-dependency-installation",
    ]


# --- the SuperExec's side -------------------------------------------------------------------------


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
    monkeypatch.setattr(executor_module, "WarmProcess", FakeWarm)
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


# --- the warm process -----------------------------------------------------------------------------


def do_task(task, loaded, on_input, ends):
    """Stand in for a ClientApp: task 9 is killed, 8 fails, the others say what they found."""
    on_input(BUNDLE)
    if task.task_id == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.task_id == 7:
        sys.modules["known.to.nobody.else"] = sys
        importlib.import_module("this")
    found = (loaded is not None, ends, "this" in sys.modules)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    with open(task.log, "a") as log:
        print(task.task_id, os.getpid(), *found, *drawn, file=log)
    return 1 if task.task_id == 8 else 0


def serve(requests, other_end, way, log):
    other_end.close()  # a forked process holds both

    def load(bundle):
        with open(log, "a") as file:
            file.write(f"load {os.getpid()} {bundle.fab_id}\n")
        np.random.seed(7)  # the app seeds one of the generators when it is imported
        return SimpleNamespace(warm_up=lambda context: context.node_id / (context.node_id - 2))

    _flower.run_client_app, _flower.load_installed_app = do_task, load
    warm.WarmProcess(requests).serve() if way == "fork" else warm.reuse(requests)


@pytest.fixture
def serving(tmp_path):
    ends = []

    def start(way):
        ours, theirs = Pipe()
        log = tmp_path / "log"
        process = multiprocessing.get_context("fork").Process(
            target=serve, args=(theirs, ours, way, log), daemon=True
        )
        process.start()
        theirs.close()
        ends.append((ours, process))

        def give(task_id):
            ours.send(SimpleNamespace(task_id=task_id, log=str(log)))
            assert ours.poll(60.0)
            return ours.recv()

        return give, process, lambda: [line.split() for line in log.read_text().splitlines()]

    yield start
    for ours, process in ends:
        ours.close()
        process.join(60)
        assert process.exitcode == 0, "the end of the pipe ends the process"


def test_every_task_has_a_process_of_its_own_and_finds_the_app_loaded(serving):
    give, process, lines = serving("fork")
    assert [give(1), give(2), give(3)] == [(1, False), (2, False), (3, False)]
    tasks = [line for line in lines() if line[0] != "load"]
    assert len({pid for _, pid, *_ in tasks} | {str(process.pid)}) == 4
    assert [line[2:4] for line in tasks] == [["False", "True"], ["True", "True"], ["True", "True"]]


def test_an_app_is_loaded_once_where_tasks_are_forked_from_even_if_it_cannot_warm_up(serving):
    give, process, lines = serving("fork")
    for task_id in (8, 1, 2):  # the first one fails: its app may not even be installed
        give(task_id)
    loads = [line for line in lines() if line[0] == "load"]
    assert loads == [["load", str(process.pid), "me/app"]]


def test_what_a_task_has_imported_the_next_one_finds(serving):
    give, _, lines = serving("fork")
    give(1), give(7), give(2)
    assert [line[4] for line in lines() if line[0] != "load"] == ["False", "True", "True"]


def test_every_task_draws_anew_unless_its_app_has_seeded_the_generator(serving):
    give, _, lines = serving("fork")
    for task_id in (1, 2, 3, 4):
        give(task_id)
    drawn = [line[5:] for line in lines() if line[0] != "load"]
    by_python, by_numpy, by_torch = (set(column) for column in zip(*drawn[1:], strict=True))
    assert (len(by_python), len(by_numpy), len(by_torch)) == (3, 1, 3)


def test_a_task_that_is_killed_is_reported_and_the_next_one_works(serving):
    give, _, _ = serving("fork")
    assert give(9) == (9, True)
    assert give(1) == (1, False)


def test_a_reused_process_does_one_task_after_the_other(serving):
    give, process, lines = serving("reuse")
    assert [give(1), give(8), give(2)] == [(1, False), (8, False), (2, False)]
    assert {pid for _, pid, *_ in lines()} == {str(process.pid)}
    assert {line[3] for line in lines()} == {"False"}, "its tasks must not end it"
