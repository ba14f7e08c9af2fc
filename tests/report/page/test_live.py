"""The live view: read-only, on this machine alone, and gone with its run."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import ArrayRecord

from benchmarks.page.made_up import write_run
from fedagent.errors import ConfigurationError
from fedagent.report.at_work import AT_WORK_FILE, AtWork
from fedagent.report.page import live, progress
from fedagent.report.page.beside import WatchedRun
from fedagent.report.page.data import read
from fedagent.report.page.progress import share_done
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch

from .conftest import NASTY

ROOT = Path(__file__).parents[3]


@contextmanager
def served(folder, monkeypatch):
    monkeypatch.setattr(live, "LAST_S", 0.0)
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    listening = live.listen(0)
    port, over = listening.getsockname()[1], threading.Event()
    view = live.LiveView(folder)
    thread = threading.Thread(target=live.serve, args=(view, listening, over.wait))
    thread.start()
    try:
        yield port
    finally:
        over.set()
        thread.join(30)
        assert not thread.is_alive()


def ask(port, path="/", host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_a_run_that_goes_on_is_a_page_and_its_data(made_up, monkeypatch):
    folder = made_up("run", is_over=False, num_jobs=100)
    (folder / "log.txt").write_text(f"one\n{NASTY}\n")
    with served(folder, monkeypatch) as port:
        status, page = ask(port)
        assert status == 200
        assert b"fedbuff" in page
        assert b"data.json" in page
        told = json.loads(ask(port, "/data.json")[1])
    assert set(told) >= {"shape", "sources", "cards", "nodes", "live", "log"}
    assert "of 100 updates" in told["live"]
    assert "left" in told["live"]
    assert "20 nodes" in told["nodes"]
    assert "&lt;/script&gt;" in told["log"]
    bars = sum(len(told["sources"][f"jobs-{kind}"]["left"]) for kind in range(7))
    assert bars == 100
    assert set(told["sources"]) >= {"curve-0", "curve-0-updates", "versions", "staleness"}


def test_a_folder_without_a_run_says_so_and_becomes_one(made_up, tmp_path, monkeypatch):
    with served(tmp_path / "later", monkeypatch) as port:
        status, page = ask(port)
        assert (status, b"no run yet" in page.lower()) == (200, True)
        write_run(tmp_path / "later")
        assert b"Over: 200 updates" in ask(port)[1]


def test_nothing_but_the_page_can_be_had_and_only_by_this_machines_names(made_up, monkeypatch):
    with served(made_up("run"), monkeypatch) as port:
        assert ask(port, "/metrics.jsonl")[0] == 404
        assert ask(port, "/../run/summary.json")[0] == 404
        assert ask(port, method="POST")[0] == 501
        assert ask(port, host="elsewhere.example:80")[0] == 403
        assert ask(port, host=f"localhost:{port}")[0] == 200
        with pytest.raises(ConfigurationError, match="name another port"):
            live.listen(port)


def test_readers_who_never_read_hold_up_nobody(made_up, monkeypatch):
    monkeypatch.setattr(live, "MOST_READERS", 4)
    monkeypatch.setattr(live._Handler, "timeout", 0.5)
    with served(made_up("run"), monkeypatch) as port:
        slow = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(20)]
        for one in slow:
            one.connect()
        for _ in range(50):
            try:
                if ask(port, "/data.json")[0] == 200:
                    break
            except (OSError, http.client.HTTPException):
                threading.Event().wait(0.2)
        else:
            pytest.fail("nobody gets an answer")
        for one in slow:
            one.close()


def test_what_is_drawn_is_kept_as_long_as_it_is_fresh(made_up, monkeypatch):
    reads = []
    monkeypatch.setattr(live, "read", lambda *a, **k: reads.append(a) or read(*a, **k))
    view = live.LiveView(made_up("run"))
    for _ in range(3):
        view.data()
    assert len(reads) == 1


def test_the_nearest_limit_is_what_is_left(made_up):
    folder = made_up("run", is_over=False, num_jobs=100)
    said = json.loads((folder / "run.json").read_text())
    said["limits"] = {"updates": 1000, "versions": 200, "seconds": None}
    (folder / "run.json").write_text(json.dumps(said))
    run = read(folder)
    versions = run.versions.x["versions"][-1]
    assert share_done(run) == (
        versions / 200,
        f"{versions:.0f} of 200 versions ({versions / 200:.0%})",
    )


def test_beside_a_run_it_is_a_process_that_ends_with_it(made_up, capfd):
    watching = WatchedRun(made_up("run"))
    watching.on_start(Statistics())
    url = capfd.readouterr().out.split()[-1]
    port = int(url.rstrip("/").rpartition(":")[2])
    assert ask(port, "/data.json")[0] == 200
    watching.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)
    assert watching._process.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        ask(port)


def test_watch_says_where_and_ends_with_ctrl_c(made_up):
    command = [sys.executable, "-m", "fedagent", "watch", str(made_up("run")), "--port=0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A job in the background is born with Ctrl-C ignored, and so is what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            url = process.stdout.readline().split()[0]
            assert ask(int(url.rstrip("/").rpartition(":")[2]))[0] == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_the_name_of_a_folder_without_a_run_is_no_markup(tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    page = live.LiveView(folder).html().decode()
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert "<script>alert(1)<" not in page


def test_the_live_view_says_it_of_every_node(made_up):
    folder = made_up("run", is_over=False, num_jobs=100)
    noted = AtWork(folder)
    for node in (1003, 77):  # which has done none before
        noted.begin(Dispatch(f"m{node}", node, 1200, "", 10.0, 99.0, local_steps=8))
    noted.write(1e6)
    shown = progress.nodes(read(folder, with_jobs=True))
    assert shown.count("trains version 1,200, 8 steps") == 2
    assert shown.count("<td>idle</td>") == 19
    assert "21 nodes" in shown


@pytest.mark.parametrize("broken", ["{", "[]", '{"now_s": 1, "jobs": [{}]}'])
def test_a_broken_file_is_a_sentence_and_no_more(made_up, broken):
    folder = made_up("run", is_over=False, num_jobs=100)
    (folder / AT_WORK_FILE).write_text(broken)
    shown = progress.nodes(read(folder, with_jobs=True))
    assert f"{AT_WORK_FILE} cannot be read" in shown
    assert "20 nodes" in shown
