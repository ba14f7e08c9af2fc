"""Processes that are started by a thread of their own."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from fedagent.process.forking import ForkingThread, cpu_seconds, end_with_parent, lead_group
from tests.simulation.workers.test_executors import eventually, is_alive

fork = multiprocessing.get_context("fork")


@pytest.fixture
def forks():
    thread = ForkingThread()
    yield thread
    thread.close()


def compute():
    torch.set_num_threads(2)
    torch.ones(4_000_000).exp().sum()


def test_a_copy_computes_in_parallel_although_this_process_has(forks):
    before = torch.get_num_threads()
    compute()
    torch.set_num_threads(before)
    copy = fork.Process(target=compute)
    forks.call(copy.start)
    copy.join(30)
    assert copy.exitcode == 0
    copy.kill()


def test_what_the_call_raises_is_raised_here_and_the_thread_goes_on(forks):
    with pytest.raises(ZeroDivisionError):
        forks.call(lambda: 1 / 0)
    assert forks.call(lambda: 2) == 2


def test_what_is_started_finds_the_settings_of_the_caller_also_those_of_a_thread(forks):
    def settings():
        return torch.is_grad_enabled(), str(torch.empty(0).device), np.geterr()["over"]

    torch.set_default_device("meta")
    try:
        with torch.no_grad(), np.errstate(over="ignore"):
            assert forks.call(settings) == settings() == (False, "meta", "ignore")
    finally:
        torch.set_default_device(None)
    assert forks.call(settings) == settings()


def stay(stops, ready):
    end_with_parent()
    ready.send("told")
    if stops:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)


@pytest.mark.parametrize("stops", [False, True])
def test_what_was_told_to_ends_with_the_thread(stops):
    forks, (ours, theirs) = ForkingThread(), fork.Pipe()
    copy = fork.Process(target=stay, args=(stops, theirs), daemon=True)
    forks.call(copy.start)
    assert ours.poll(60.0)
    if stops:
        os.waitpid(copy.pid, os.WUNTRACED)
    assert copy.is_alive()
    forks.close()
    assert eventually(lambda: not is_alive(copy.pid))


def test_processor_time_counts_the_whole_group(forks):
    def work():
        lead_group()
        if os.fork() == 0:
            end_s = time.monotonic() + 60
            while time.monotonic() < end_s:
                pass
        time.sleep(60)

    leader = fork.Process(target=work)
    forks.call(leader.start)
    try:
        assert eventually(lambda: cpu_seconds(leader.pid) > 0.3)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.join()
