"""Runs that are killed at every edge of their journal: nothing lost or doubled, the same bits."""

import os
import signal
import threading

import numpy as np
import pytest

from benchmarks.reliability import chaos, runs
from fedagent.journal import Log, checkpoints


@pytest.mark.slow
def test_killed_at_every_edge_nothing_is_lost_or_doubled_and_a_simulation_ends_the_same():
    found = chaos.chaos(each=1, names=["fedbuff", "hierarchical"]).summary()
    assert found["fewest_at_an_edge"] >= 1
    assert found["kills"] >= len(chaos.SIMULATED) + len(chaos.REAL)
    assert found["acknowledged"] >= runs.UPDATES
    assert (found["lost"], found["doubled"], found["wrong_counts"]) == (0, 0, 0)
    assert found["bit_exact"]
    assert found["recovery_s"] < 5


def test_killed_while_a_checkpoint_is_written_the_one_before_and_both_logs_say_all(tmp_path):
    def run():
        write, waits, left = checkpoints.write, threading.Event(), [3]

        def write_two(parts, path):
            if path.name.startswith(f".{3:012}"):
                waits.set()
                threading.Event().wait()
            write(parts, path)

        def die(call, file):
            call()
            left[0] -= waits.is_set()
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoints.write = write_two
        chaos.intercept(Log, "append", die)
        runs.real(tmp_path)

    assert chaos.in_child(run) == signal.SIGKILL
    logs = [path.stat().st_size for path in sorted((tmp_path / "checkpoints").glob("*.log"))]
    assert len(logs) == 3
    assert logs[-1], "the loop was in the third log already"
    assert chaos.in_child(lambda: runs.real(tmp_path, resume=True)) == 0
    found = runs.account(tmp_path)
    assert found.acknowledged >= runs.UPDATES
    assert (found.lost, found.doubled, found.wrong) == (0, 0, 0)


def test_of_a_run_without_a_log_the_account_says_what_is_lost(tmp_path):
    """What the test above goes by would notice."""

    def run():
        left = [4]

        def die(call, file):
            left[0] -= 1
            return call() if left[0] else os.kill(os.getpid(), signal.SIGKILL)

        Log.append = lambda *arguments, **keywords: None
        chaos.intercept(checkpoints, "write", die)
        runs.real(tmp_path)

    assert chaos.in_child(run) == signal.SIGKILL
    assert chaos.in_child(lambda: runs.real(tmp_path, resume=True)) == 0
    found = runs.account(tmp_path)
    assert found.lost >= runs.EVERY
    assert found.doubled == 0


def test_an_update_that_is_there_twice_is_doubled(tmp_path):
    np.save(tmp_path / "counts.npy", np.array([1.0, 2.0, 0.0]))
    (tmp_path / "jobs").write_text("a\nb\n")
    (tmp_path / "acknowledged").write_text("a\nb\nb\n")
    (tmp_path / "num_updates").write_text("2")
    assert runs.account(tmp_path) == runs.Account(acknowledged=2, lost=0, doubled=1, wrong=1)
