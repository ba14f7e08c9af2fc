"""SuperNodes and a SuperLink that are killed (SIGKILL) and restarted under a run."""

import os
import signal
import time
from collections import Counter

import pytest

from benchmarks.reliability.real_fleet import Fleet, check_the_counts, running


def is_training(fleet, k):
    return (fleet.folder / f"training-{k}").exists


def is_idle(fleet, k):
    log = fleet.folder / f"node-{k}.log"
    return lambda: log.read_text().rstrip().endswith("Sent successfully")


def is_uploading(fleet, k):
    log = fleet.folder / f"node-{k}.log"
    seen = log.read_text().count("Sending: train message")
    return lambda: log.read_text().count("Sending: train message") > seen


@pytest.mark.slow
def test_supernodes_killed_at_four_points_and_restarted_stop_nobody(tmp_path):
    """Idle, before it has pulled its message, training, uploading 20 MB."""
    fleet = Fleet(tmp_path, num_nodes=5, concurrency=4, seconds=0.5, parameters=5_000_000)
    with running(fleet, 5):
        fleet.wait(is_idle(fleet, 4), "device 4 has nothing to do")
        fleet.kill("node-4")
        # A stopped node still counts as there, and a message is pushed for it.
        os.kill(fleet.processes["node-0"].pid, signal.SIGSTOP)
        time.sleep(3.0)
        fleet.kill("node-0")
        fleet.wait(is_training(fleet, 1), "device 1 trains")
        fleet.kill("node-1")
        fleet.wait(is_uploading(fleet, 2), "device 2 uploads")
        fleet.kill("node-2")
        killed_at = fleet.delivered()
        fleet.wait(lambda: fleet.delivered()["3"] > killed_at["3"] + 2, "device 3 goes on alone")
        for k in (0, 1, 2, 4):
            fleet.start_node(k)
        fleet.wait(
            lambda: all(fleet.delivered()[str(k)] > killed_at[str(k)] for k in range(5)),
            "every device is back",
        )
        summary = fleet.finish()
    check_the_counts(fleet, summary)
    assert summary["end"] == "told to"
    failed = [s for s in fleet.settlements() if s["outcome"] == "failed"]
    per_node = Counter(s["node"] for s in failed)
    minutes = max(1.0, summary["seconds"] / 60)
    assert all(count <= 5 * minutes for count in per_node.values()), failed


@pytest.mark.slow
def test_a_serverapp_that_is_killed_loses_no_update_and_its_successor_goes_on(tmp_path):
    fleet = Fleet(tmp_path, num_nodes=2, concurrency=2, seconds=0.1, checkpoint_every=5)

    def applied():
        return [s["token"] for s in fleet.settlements() if s["outcome"] == "applied"]

    with running(fleet, 2):
        for kills in (1, 2):
            fleet.wait(lambda least=8 * kills: len(set(applied())) >= least, "updates are applied")
            os.kill(int((tmp_path / "server-pid").read_text()), signal.SIGKILL)
            fleet.wait(lambda: fleet.processes["run"].poll() is not None, "the run is over")
            acknowledged = set(applied())
            fleet.start_run()
            fleet.wait(
                lambda known=acknowledged: set(applied()) > known, "new updates after a new start"
            )
        summary = fleet.finish()
    assert summary["num_updates"] == len(set(applied())), "each is in the model once"
    assert acknowledged <= set(applied())
    interrupted = {s["token"] for s in fleet.settlements() if s["reason"] == "interrupted"}
    assert interrupted, "what was in flight has an end too"
    assert not interrupted & set(applied())
    assert summary["num_dispatches"] == len({s["token"] for s in fleet.settlements()})


@pytest.mark.slow
def test_a_run_survives_a_restart_of_its_superlink(tmp_path):
    fleet = Fleet(
        tmp_path, "--isolation=process", f"--database={tmp_path}/superlink.db", num_nodes=2
    )
    with running(fleet, 2):
        fleet.kill("superlink")
        time.sleep(2.0)
        before = fleet.delivered()
        fleet.start_superlink()
        fleet.wait(
            lambda: all(fleet.delivered()[k] > before[k] + 1 for k in ("0", "1")),
            "both devices deliver again",
            # A message that the crash cost ends at its deadline of 60 s; at twice that the grid
            # answers for its node, which then gets work again.
            timeout_s=300,
        )
        summary = fleet.finish()
    check_the_counts(fleet, summary)
    assert summary["end"] == "told to"
