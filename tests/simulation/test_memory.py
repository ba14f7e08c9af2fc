"""Freed memory stays with the process, and no page of it is asked for again."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from fedagent.simulation.memory import keep_freed_memory

{before}
for _ in range(3):
    torch.ones(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.ones(2_000_000), torch.ones(3_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(before: str = "") -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(before=before)],
        check=True,
        capture_output=True,
        text=True,
        env={"MALLOC_MMAP_THRESHOLD_": "131072"},  # as if nothing had been freed yet
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_used_again():
    assert faults("keep_freed_memory()") < 10_000 < faults()
