"""A simulation whose process is killed, and that goes on in another process: kill -9, then resume.

The clients keep something in their Contexts (AREA), the workers are processes, and it goes on with
another number of them.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = [
    *("app=regression", "strategy=area", "fleet.num_nodes=8", "cohort=4"),
    *("checkpoint=updates", "checkpoint.every=8", "stopping.max_updates=120"),
    *("runtime=processes", "runtime.workers=1", "display=false", "page=false"),
]


def fedagent(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "fedagent", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(*words: str) -> str:
    process = fedagent(*words)
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, said
    return said


def lines(folder: Path, name: str) -> list[dict[str, object]]:
    read = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [line | {"wall_time_s": None} for line in read]


@pytest.mark.slow
def test_kill_9_and_resume_leave_what_an_undisturbed_run_leaves(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished("run", *WORDS, f"output_dir={whole}")
    process = fedagent("run", *WORDS, f"output_dir={killed}")
    while len(list(killed.glob("checkpoints/0*"))) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "summary.json").exists()

    finished("resume", str(killed), "runtime.workers=0")

    summaries = [json.loads((f / "summary.json").read_text()) for f in (whole, killed)]
    assert summaries[0]["num_updates"] == 120
    for summary in summaries:
        summary["wall_time_s"] = None
    assert summaries[0] == summaries[1]  # params_sha256 among it
    for name in ("metrics.jsonl", "jobs.jsonl"):
        assert lines(whole, name) == lines(killed, name)

    refused = fedagent("resume", str(killed), "seed=2")
    said = " ".join(refused.communicate(timeout=300)[0].decode().split())
    assert refused.returncode == 2
    assert "seed=2 cannot change in a run that goes on" in said
