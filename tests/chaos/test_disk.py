"""A disk that fills up or becomes read-only under a run: one clear error, and nothing lost."""

import os
import subprocess

import pytest

from benchmarks.reliability import runs
from fedagent.errors import OutputError
from fedagent.journal import checkpoints


def mount(folder, options, *flags):
    words = ("mount", *flags, "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    done = subprocess.run(words, check=False, capture_output=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"this machine does not allow it: {done.stderr.decode()}")


@pytest.fixture
def small_disk(tmp_path):
    """A folder whose checkpoints lie on a disk of 200 kB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk")
    (tmp_path / "checkpoints").mkdir()
    mount(tmp_path / "checkpoints", "size=200k")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path / "checkpoints")], check=True, timeout=30)


def check_that_all_is_there(folder):
    runs.real(folder, resume=True)
    found = runs.account(folder)
    assert found.acknowledged == runs.UPDATES
    assert (found.lost, found.doubled, found.wrong) == (0, 0, 0)


def test_a_log_that_fills_the_disk_is_one_error_and_with_more_room_the_run_goes_on(small_disk):
    with pytest.raises(OutputError, match=r"\.log cannot be written: No space left.*make room"):
        runs.real(small_disk, every=1_000)
    acknowledged = (small_disk / "acknowledged").read_text().split()
    assert len(acknowledged) > 5
    mount(small_disk / "checkpoints", "remount,size=10m")
    check_that_all_is_there(small_disk)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_its_log(small_disk, monkeypatch):
    write, left = checkpoints.write, [3]

    def fill(arrays, path):
        left[0] -= 1
        if left[0] == 0:
            (path.parent / "large").write_bytes(bytes(os.statvfs(path.parent).f_bavail * 4096 - 1))
        write(arrays, path)

    monkeypatch.setattr(checkpoints, "write", fill)
    mount(small_disk / "checkpoints", "remount,size=1m")
    with pytest.raises(OutputError, match=r"000003\.(safetensors|log) cannot be written"):
        runs.real(small_disk)
    (small_disk / "checkpoints" / "large").unlink()
    check_that_all_is_there(small_disk)


def test_a_folder_that_is_read_only_is_one_error_and_when_it_is_back_the_run_goes_on(small_disk):
    with pytest.raises(OutputError):
        runs.real(small_disk, every=1_000)
    mount(small_disk / "checkpoints", "remount,ro,size=10m")
    with pytest.raises(OutputError, match="cannot be written: Read-only file system"):
        runs.real(small_disk, resume=True)
    mount(small_disk / "checkpoints", "remount,rw,size=10m")
    check_that_all_is_there(small_disk)
