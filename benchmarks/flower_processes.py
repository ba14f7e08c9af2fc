"""Flower's own processes on loopback, for benchmarks and tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass
class Flower:
    """A folder that is FLWR_HOME, and the processes that were started from it."""

    home: Path

    def __post_init__(self):
        self.port = free_port()
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1",  # several devices share the cores of this machine
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )

    @contextmanager
    def process(self, *command: str) -> Iterator[subprocess.Popen]:
        """Run a command in a process group of its own, and end the group afterwards."""
        log = self.home / f"{command[0]}-{free_port()}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )
            process.log = log
            try:
                yield process
            finally:
                os.killpg(process.pid, 15)
                process.wait(timeout=60)

    @contextmanager
    def superlink(self, *flags: str) -> Iterator[subprocess.Popen]:
        """Run a SuperLink, from when it listens."""
        with self.process(
            "flower-superlink",
            "--insecure",
            "--port",
            str(self.port),
            "--disable-runtime-dependency-installation",
            *flags,
        ) as process:
            wait_until_it_listens(self.port, process)
            yield process

    def run(self, overrides: str, *flags: str, timeout: float = 300) -> str:
        """Run the reference app to its end; return what it printed."""
        return self.run_app(ROOT, f'overrides="{overrides}"', *flags, timeout=timeout)

    def run_app(self, folder: Path, config: str, *flags: str, timeout: float = 300) -> str:
        """Run the Flower App in `folder` to its end; return what it printed."""
        finished = subprocess.run(
            ["flwr", "run", str(folder), "local", "--stream", *flags, "--run-config", config],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return finished.stdout + finished.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_listens(port: int, process: subprocess.Popen) -> None:
    for _ in range(120):
        assert process.poll() is None, process.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the SuperLink does not listen:\n{process.log.read_text()}")
