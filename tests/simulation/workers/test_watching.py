"""Jobs that do not end by themselves: each is one failure, and the others' answers are the same."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from fedagent._flower import ErrorCode
from fedagent.process import watching
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from tests.simulation.apps import app_of, draw, request
from tests.simulation.workers.test_executors import answers, eventually, is_alive, item, within


def sleep_for_ever():
    time.sleep(10_000)


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)


def wait_for_itself():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def compute_for_ever():
    while True:
        pass


def ignore_sigterm_and_sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_for_ever()


def die_while_a_forked_child_lives():
    if os.fork() == 0:
        sleep_for_ever()
    os._exit(3)


def die_while_a_manager_lives():
    multiprocessing.Manager()
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_a_loader_lives():
    loader = torch.utils.data.DataLoader(range(64), num_workers=2, persistent_workers=True)
    next(iter(loader))
    os.kill(os.getpid(), signal.SIGKILL)


WITHOUT_END = [
    sleep_for_ever,
    stop_itself,
    wait_for_itself,
    compute_for_ever,
    ignore_sigterm_and_sleep,
]
DEATHS = [die_while_a_forked_child_lives, die_while_a_manager_lives, die_while_a_loader_lives]
DEEDS = {deed.__name__: deed for deed in WITHOUT_END + DEATHS}


def misbehave_as_told(message, context):
    drawn = draw(message, context)
    DEEDS.get(message.content["config"].get("do"), lambda: None)()
    return drawn


def items(deed):
    words = ["work", deed.__name__, "work", "work"]
    return [item(n, request(n, do=word)) for n, word in enumerate(words)]


def assert_only_the_second_failed(done, reason):
    good = answers(Inline(app_of(draw)), [item(n) for n in (0, 2, 3)])
    failed = done.pop(1).content
    assert [answer.content for answer in done] == [answer.content for answer in good]
    assert failed.code == ErrorCode.CLIENT_APP_CRASHED
    assert reason in failed.reason


@pytest.mark.parametrize("deed", WITHOUT_END)
def test_a_job_without_end_is_ended_at_the_limit_and_fails_alone(deed):
    with Processes(app_of(misbehave_as_told), 2, job_limit_s=0.5) as executor:
        done = within(120, lambda: answers(executor, items(deed)))
    assert_only_the_second_failed(done, "longer than runtime.job_limit_s=0.5")


@pytest.mark.parametrize("deed", [sleep_for_ever, stop_itself, wait_for_itself])
def test_without_a_limit_a_job_that_does_not_compute_is_ended(deed, monkeypatch):
    monkeypatch.setattr(watching, "IDLE_LIMIT_S", 2.0)
    with Processes(app_of(misbehave_as_told), 1) as executor:
        done = within(120, lambda: answers(executor, items(deed)))
    assert_only_the_second_failed(done, "used no processor time")


def test_without_a_limit_a_job_that_computes_in_a_child_goes_on(monkeypatch):
    monkeypatch.setattr(watching, "IDLE_LIMIT_S", 3.0)
    monkeypatch.setattr(watching, "_IDLE_CPU_S", 0.05)
    long = "import time\nend = time.monotonic() + 7\nwhile time.monotonic() < end: pass"

    def let_a_child_compute(message, context):
        subprocess.run([sys.executable, "-c", long], check=True)
        return draw(message, context)

    with Processes(app_of(let_a_child_compute), 1) as executor:
        [answer] = answers(executor, [item(0)])
    assert "metrics" in answer.content


@pytest.mark.parametrize("deed", DEATHS)
def test_a_death_is_noticed_although_a_child_holds_the_pipe(deed):
    with Processes(app_of(misbehave_as_told), 2) as executor:
        done = within(120, lambda: answers(executor, items(deed)))
    assert_only_the_second_failed(done, "died")


def test_a_long_job_is_named_in_a_line(monkeypatch, caplog):
    monkeypatch.setattr(watching, "NOTICE_S", 0.5)

    def take_a_while(message, context):
        time.sleep(2.5)
        return draw(message, context)

    with caplog.at_level(logging.WARNING, "flwr"), Processes(app_of(take_a_while), 1) as executor:
        [answer] = answers(executor, [item(7)])
        [worker] = multiprocessing.active_children()
    assert "metrics" in answer.content
    said = [r.getMessage() for r in caplog.records if "No answer from node 1008" in r.getMessage()]
    assert 1 <= len(said) <= 2
    assert f"worker process {worker.pid} " in said[0]
    assert "runtime.job_limit_s" in said[0]


@pytest.mark.parametrize("killed", ["worker", "parent"])
def test_what_a_client_has_started_ends_with_its_worker(killed, tmp_path):
    note = tmp_path / "child"

    def start_a_child(message, context):
        if (child := os.fork()) == 0:
            sleep_for_ever()
        note.write_text(str(child))
        sleep_for_ever()

    def work():
        with Processes(app_of(start_a_child), 1, job_limit_s=600 if killed == "parent" else 1) as e:
            answers(e, [item(0)])

    parent = multiprocessing.get_context("fork").Process(target=work)
    parent.start()
    assert eventually(lambda: note.exists() and note.read_text())
    if killed == "parent":
        parent.kill()
    assert eventually(lambda: not is_alive(int(note.read_text())))
    parent.join(30)
    assert parent.exitcode is not None


def test_threads_may_be_used_in_a_worker_after_they_were_used_here():
    def compute():
        torch.set_num_threads(2)
        return torch.ones(4_000_000).exp().sum()

    def work(message, context):
        compute()
        return draw(message, context)

    before = torch.get_num_threads()
    try:
        compute()
        with Processes(app_of(work), 1) as executor:
            [answer] = within(120, lambda: answers(executor, [item(0)]))
    finally:
        torch.set_num_threads(before)
    assert "metrics" in answer.content
