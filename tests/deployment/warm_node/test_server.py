"""The warm process: what a task finds in it."""

import importlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.connection import Pipe
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedagent import _flower
from fedagent._flower import AppBundle
from fedagent.deployment.warm_node import server as warm
from fedagent.process.forking import ForkingThread
from tests.simulation.workers.test_executors import eventually, is_alive

BUNDLE = AppBundle("me/app", "1.0.0", "f" * 64, Context(1, 2, {}, RecordDict(), {}))


def do_task(task, loaded, on_input, ends):
    """Stand in for a ClientApp: some tasks end in their own way, the others say what they found."""
    on_input(BUNDLE)
    if task.task_id == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.task_id == 10:
        os._exit(0)
    if task.task_id == 11:
        raise GeneratorExit
    if task.task_id == 12 and os.fork():
        os._exit(3)  # and what it has forked goes on for a while, with its pipes
    if task.task_id == 12:
        time.sleep(30)
        os._exit(0)
    if task.task_id == 14:
        os.closerange(3, 256)
        time.sleep(1.0)
        os._exit(0)
    if task.task_id == 15:
        sys.stdout.close()
        os.close(2)
    if task.task_id == 16:
        return _flower.UNANSWERED
    if task.task_id == 17:
        with open(task.log, "a") as log:
            print(os.getpid(), os.fork() or os.getpid(), file=log)
        os.kill(os.getpid(), signal.SIGSTOP)
    if task.task_id == 13:
        compute_in_parallel()
    if task.task_id == 7:
        sys.modules["known.to.nobody.else"] = sys
        importlib.import_module("this")
    found = (loaded is not None, ends, "this" in sys.modules)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    with open(task.log, "a") as log:
        print(task.task_id, os.getpid(), *found, *drawn, file=log)
    return 1 if task.task_id == 8 else 0


def compute_in_parallel():
    torch.set_num_threads(2)
    torch.ones(4_000_000).exp().sum()


def serve(requests, other_end, way, log):
    other_end.close()  # a forked process holds both

    def load(bundle):
        with open(log, "a") as file:
            file.write(f"load {os.getpid()} {bundle.fab_id}\n")
        compute_in_parallel()
        np.random.seed(7)  # the app seeds one of the generators when it is imported
        return SimpleNamespace(warm_up=lambda context: context.node_id / (context.node_id - 2))

    _flower.run_client_app, _flower.load_installed_app = do_task, load
    warm.WarmProcessServer(requests).serve() if way == "fork" else warm.reuse(requests)


@pytest.fixture
def serving(tmp_path):
    ends = []

    def start(way):
        ours, theirs = Pipe()
        log = tmp_path / "log"
        process = multiprocessing.get_context("fork").Process(
            target=serve, args=(theirs, ours, way, log), daemon=True
        )
        ForkingThread().call(process.start)  # tests before may have computed in parallel
        theirs.close()
        ends.append((ours, process))

        def give(task_id):
            ours.send(SimpleNamespace(task_id=task_id, log=str(log)))
            assert ours.poll(60.0)
            assert ours.recv().task_id == task_id, "it has begun"
            assert ours.poll(60.0)
            return ours.recv()

        return give, process, lambda: [line.split() for line in log.read_text().splitlines()]

    yield start
    for ours, process in ends:
        ours.close()
        process.join(60)
        assert process.exitcode == 0, "the end of the pipe ends the process"


def note_surroundings(task, loaded, on_input, ends):
    """Stand in for a ClientApp that writes down what it finds around it."""
    on_input(BUNDLE)
    with open(task.log, "w") as log:
        log.write(json.dumps([dict(os.environ), sys.argv]))
    return 0


@pytest.mark.parametrize("way", ["fork", "reuse"])
def test_a_client_app_sees_the_users_environment(way, tmp_path, monkeypatch):
    monkeypatch.setattr(_flower, "run_client_app", note_surroundings)
    monkeypatch.setattr(_flower, "load_installed_app", lambda bundle: None)
    ours, theirs = Pipe()
    os.set_inheritable(theirs.fileno(), True)

    def be_warm():
        ours.close()
        warm.main([str(theirs.fileno()), f"--executor={way}"])

    process = multiprocessing.get_context("fork").Process(target=be_warm, daemon=True)
    ForkingThread().call(process.start)  # tests before may have computed in parallel
    log = tmp_path / "log"
    ours.send(SimpleNamespace(task_id=1, log=str(log)))
    assert ours.poll(60.0)
    ours.close()
    process.join(60)
    environment, argv = json.loads(log.read_text())
    assert environment == dict(os.environ)
    assert argv == ["flwr-clientapp"]


def test_while_a_process_is_copied_cuda_is_asked_for_without_touching_it(monkeypatch):
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    monkeypatch.delenv(name, raising=False)
    with warm.cuda_left_alone():
        assert os.environ[name] == "1"
    assert name not in os.environ
    monkeypatch.setenv(name, "0")  # the user's word counts
    with warm.cuda_left_alone():
        assert os.environ[name] == "0"
    assert os.environ[name] == "0"


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


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_app_that_cannot_be_prepared_leaves_the_warm_process_alive(kind, monkeypatch, capsys):
    def load(bundle):
        raise kind("not here")

    monkeypatch.setattr(_flower, "load_installed_app", load)
    warm.prepare(BUNDLE, warm.Randomness())
    assert "every task will do it" in capsys.readouterr().err


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


@pytest.mark.parametrize("task_id", [9, 10, 11, 12, 14, 16])
def test_a_task_that_did_not_come_to_its_end_is_reported_and_the_next_one_works(serving, task_id):
    give, _, _ = serving("fork")
    begun_s = time.monotonic()
    assert give(task_id) == (task_id, True)
    assert give(1) == (1, False)
    assert time.monotonic() - begun_s < 20


def test_a_task_may_use_threads_after_its_app_has_used_them_when_it_was_imported(serving):
    give, _, lines = serving("fork")
    give(1)
    assert give(13) == (13, False)
    assert [line[0] for line in lines()] == ["1", "load", "13"]


def test_a_task_that_closes_its_streams_comes_to_its_end(serving):
    give, _, _ = serving("fork")
    assert give(15) == (15, False)


def test_what_hangs_ends_with_the_warm_process(tmp_path):
    ours, theirs = Pipe()
    log = tmp_path / "log"
    process = multiprocessing.get_context("fork").Process(
        target=serve, args=(theirs, ours, "fork", log), daemon=True
    )
    ForkingThread().call(process.start)  # tests before may have computed in parallel
    theirs.close()
    ours.send(SimpleNamespace(task_id=17, log=str(log)))
    assert ours.poll(60.0)
    begun = ours.recv()
    assert eventually(lambda: log.exists() and len(log.read_text().split()) == 4)
    pids = {int(pid) for pid in log.read_text().split()}  # one that goes on writes more than that
    assert is_alive(begun.process_id)
    assert begun.process_id in pids
    process.kill()
    process.join(60)
    assert eventually(lambda: not any(map(is_alive, pids)))


def test_a_reused_process_does_one_task_after_the_other(serving):
    give, process, lines = serving("reuse")
    assert [give(1), give(8), give(2)] == [(1, False), (8, False), (2, False)]
    assert {pid for _, pid, *_ in lines()} == {str(process.pid)}
    assert {line[3] for line in lines()} == {"False"}, "its tasks must not end it"


def test_a_reused_process_says_which_task_has_no_answer(serving):
    give, _, _ = serving("reuse")
    assert [give(16), give(1)] == [(16, True), (1, False)]
