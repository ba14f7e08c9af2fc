"""A real fleet on loopback, and what its app has noted so far."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.flower_processes import Flower, free_port, wait_until_it_listens

APP = Path(__file__).parent / "fleet_app"


class Fleet:
    """Processes by name, and what the app has noted so far."""

    def __init__(self, folder, *superlink_flags, app=APP, **config):
        self.flower, self.folder = Flower(folder), folder
        self.superlink_flags, self.app = superlink_flags, app
        self.processes, self.started = {}, []
        words = {"folder": str(folder), **config}
        self.config = " ".join(
            f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in words.items()
        )

    def start(self, name, *command):
        """Start a process whose log is named after it."""
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
        """Start the SuperLink, and wait until it listens."""
        command = ["flower-superlink", "--insecure", f"--port={self.flower.port}"]
        command += ["--disable-runtime-dependency-installation", *self.superlink_flags]
        process = self.start("superlink", *command)
        wait_until_it_listens(self.flower.port, process)

    def start_node(self, k, host="127.0.0.1", prefix=(), flags=()):
        """Start the SuperNode of device `k`."""
        self.start(
            f"node-{k}",
            *prefix,
            "fedagent",
            "node",
            "--insecure",
            f"--superlink={host}:{self.flower.port}",
            f"--port={free_port()}",
            f"--node-config=device={k}",
            *flags,
        )

    def start_run(self):
        """Start the app."""
        command = ["flwr", "run", str(self.app), "local", "--stream", "--run-config", self.config]
        return self.start("run", *command)

    def kill(self, name):
        """End a process, and not what it has started, without a word."""
        process = self.processes.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)

    def end(self):
        """End everything that was started."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    # --- what is known ----------------------------------------------------------------------------

    def delivered(self):
        """Return how many updates each device has delivered."""
        file = self.folder / "delivered"
        return Counter(file.read_text().split() if file.exists() else [])

    def settlements(self):
        """Return how dispatches have ended, as `Settlement` says it."""
        file = self.folder / "settlements.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait(self, condition, what, timeout_s=300):
        """Wait for a condition; an ``AssertionError`` that it never held shows the logs."""
        until_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until_s:
                logs = {p.name: p.read_text()[-1500:] for p in self.folder.glob("*.log")}
                said = "\n".join(f"--- {name}\n{text}" for name, text in logs.items())
                raise AssertionError(
                    f"{what}: not within {timeout_s} s\n{self.delivered()}\n{said}"
                )
            time.sleep(0.01)

    def wait_for_all(self, num_nodes):
        """Wait until every device has delivered."""
        names = {str(k) for k in range(num_nodes)}
        self.wait(lambda: names <= set(self.delivered()), "every device delivers")

    def finish(self):
        """Tell the run to end; return its summary."""
        (self.folder / "stop").touch()
        summary = self.folder / "summary.json"
        self.wait(summary.exists, "the run ends")
        time.sleep(0.5)
        return json.loads(summary.read_text())


@contextmanager
def running(fleet, num_nodes):
    """Start a fleet and its run, and end them."""
    try:
        fleet.start_superlink()
        if "--isolation=process" in fleet.superlink_flags:
            address = f"--runtime-api-address=127.0.0.1:{fleet.flower.port}"
            fleet.start("superexec", "flower-superexec", "--insecure", address)
        for k in range(num_nodes):
            fleet.start_node(k)
        fleet.start_run()
        fleet.wait_for_all(num_nodes)
        yield
    finally:
        fleet.end()


def check_the_counts(fleet, summary):
    """Assert that every dispatch has one end, and that all updates are there."""
    outcomes = Counter(s["outcome"] for s in fleet.settlements())
    assert sum(outcomes.values()) == summary["num_dispatches"], "every dispatch has one end"
    assert outcomes["applied"] == summary["num_updates"] == sum(fleet.delivered().values())
