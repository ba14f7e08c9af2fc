"""Folders that end with their process."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from fedagent.process.folders import own_folder

MAKE = (
    "import sys, time; from fedagent.process.folders import own_folder\n"
    "print(own_folder('own-test-'), flush=True)\n"
    "sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def other(here):
    """Start another process that makes a folder; return it and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    folder = here / process.stdout.readline().strip()
    assert folder.is_dir()
    return process, folder


def test_a_folder_is_private_and_goes_with_its_process(here):
    process, folder = other(here)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "kept").write_text("x")
    process.communicate()
    assert not folder.exists()


def test_what_a_killed_process_left_goes_when_the_next_one_starts_and_a_living_one_keeps_its_own(
    here,
):
    killed, left = other(here)
    living, kept = other(here)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.exists()
    own = own_folder("own-test-")
    assert not left.exists()
    assert kept.exists()
    assert own.is_dir()
    living.communicate()


def test_a_folder_that_cannot_be_made_is_an_error(here, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(here / "nowhere"))
    with pytest.raises(OSError, match="nowhere"):
        own_folder(f"own-test-{os.getpid()}-")
