"""A real fleet on loopback whose SuperNodes and SuperLink are killed (SIGKILL) and restarted."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.flower_processes import Flower, free_port, wait_until_it_listens

APP = Path(__file__).parent / "fleet"


class Fleet:
    """Processes by name, and what the app has noted so far."""

    def __init__(self, folder, *superlink_flags, **config):
        self.flower, self.folder = Flower(folder), folder
        self.superlink_flags, self.processes, self.started = superlink_flags, {}, []
        words = {"folder": str(folder), **config}
        self.config = " ".join(
            f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in words.items()
        )

    def start(self, name, *command):
        log = (self.folder / f"{name}.log").open("a")
        process = subprocess.Popen(
            command,
            env=self.flower.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            start_new_session=True,
        )
        process.log = Path(log.name)
        self.processes[name] = process
        self.started.append(process)
        return process

    def start_superlink(self):
        command = ["flower-superlink", "--insecure", f"--port={self.flower.port}"]
        command += ["--disable-runtime-dependency-installation", *self.superlink_flags]
        process = self.start("superlink", *command)
        wait_until_it_listens(self.flower.port, process)

    def start_node(self, k):
        self.start(
            f"node-{k}",
            "fedagent",
            "node",
            "--insecure",
            f"--superlink=127.0.0.1:{self.flower.port}",
            f"--port={free_port()}",
            f"--node-config=device={k}",
        )

    def start_run(self):
        command = ["flwr", "run", str(APP), "local", "--stream", "--run-config", self.config]
        return self.start("run", *command)

    def kill(self, name):
        """End a process, and not what it has started, without a word."""
        process = self.processes.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)

    def end(self):
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    # --- what is known ----------------------------------------------------------------------------

    def delivered(self):
        file = self.folder / "delivered"
        return Counter(file.read_text().split() if file.exists() else [])

    def settlements(self):
        file = self.folder / "settlements.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait(self, condition, what, timeout_s=150):
        until_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until_s:
                logs = {p.name: p.read_text()[-1500:] for p in self.folder.glob("*.log")}
                said = "\n".join(f"--- {name}\n{text}" for name, text in logs.items())
                raise AssertionError(
                    f"{what}: not within {timeout_s} s\n{self.delivered()}\n{said}"
                )
            time.sleep(0.01)

    def finish(self):
        (self.folder / "stop").touch()
        summary = self.folder / "summary.json"
        self.wait(summary.exists, "the run ends", 60)
        time.sleep(0.5)
        return json.loads(summary.read_text())


@contextmanager
def running(fleet, num_nodes):
    try:
        fleet.start_superlink()
        if "--isolation=process" in fleet.superlink_flags:
            address = f"--runtime-api-address=127.0.0.1:{fleet.flower.port}"
            fleet.start("superexec", "flower-superexec", "--insecure", address)
        for k in range(num_nodes):
            fleet.start_node(k)
        fleet.start_run()
        names = {str(k) for k in range(num_nodes)}
        fleet.wait(lambda: names <= set(fleet.delivered()), "every device delivers")
        yield
    finally:
        fleet.end()


def check_the_counts(fleet, summary):
    outcomes = Counter(s["outcome"] for s in fleet.settlements())
    assert sum(outcomes.values()) == summary["num_dispatches"], "every dispatch has one end"
    assert outcomes["applied"] == summary["num_updates"] == sum(fleet.delivered().values())


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
    assert summary["reason"] == "told to"
    failed = [s for s in fleet.settlements() if s["outcome"] == "failed"]
    per_node = Counter(s["node"] for s in failed)
    minutes = max(1.0, summary["seconds"] / 60)
    assert all(count <= 5 * minutes for count in per_node.values()), failed


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
        )
        summary = fleet.finish()
    check_the_counts(fleet, summary)
    assert summary["reason"] == "told to"
