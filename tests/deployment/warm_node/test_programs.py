"""What our own programs are started with."""

import os
import sys
from multiprocessing.connection import Pipe

from fedagent.deployment.warm_node.programs import start_with


def test_a_program_of_ours_finds_what_we_find_and_has_the_users_environment(tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(
        "import os, sys\nfrom multiprocessing.connection import Connection\n"
        "def main(words):\n"
        "    Connection(int(words[0])).send((dict(os.environ), sys.path, words[1:]))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/the/users/own")
    ours, end = Pipe()
    process = start_with("probe", end, "--a=b", "c")
    assert ours.poll(60.0)
    environment, path, words = ours.recv()
    assert process.wait(60) == 0
    assert path == [entry for entry in sys.path if entry]
    assert environment["PYTHONPATH"] == "/the/users/own"
    of_c = {"COLUMNS", "LINES", "LANGUAGE"}  # set by libraries of C, unknown to Python
    assert {*environment} - {*os.environ} <= of_c
    assert words == ["--a=b", "c"]
