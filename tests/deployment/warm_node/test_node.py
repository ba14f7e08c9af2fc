"""``fedagent node``: the command, and the SuperNode's side of the pipe."""

import importlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Pipe
from types import SimpleNamespace

import pytest

from fedagent import _flower
from fedagent._flower.private_use import PrivateName
from fedagent._flower.uses import WARM_NODE
from fedagent.deployment.warm_node import node as node_module
from fedagent.deployment.warm_node.idle import Idleness
from fedagent.deployment.warm_node.node import Supervisor


@pytest.fixture
def supervised():
    link, end = Pipe()
    executor = SimpleNamespace(wait=lambda: 3)
    yield Supervisor(link, executor, Idleness(first_s=0.2, longest_s=0.2)), end
    end.close()


def test_a_task_wakes_the_superexec(supervised):
    supervisor, end = supervised
    supervisor.on_task()
    assert end.poll(1.0)
    assert end.recv() == "task"


def test_word_that_a_task_has_ended_cuts_the_wait_for_its_reply_short(supervised, monkeypatch):
    supervisor, end = supervised
    monkeypatch.setattr(node_module, "_REPLY_PAUSE_S", 30.0)
    end.send((7, False))
    begin_s = time.monotonic()
    supervisor.await_reply(state=object())  # which is not touched: nobody died
    assert time.monotonic() - begin_s < 10.0


def test_a_task_whose_process_died_is_answered_for(supervised, monkeypatch):
    supervisor, end = supervised
    expired = []
    monkeypatch.setattr(_flower, "expire_task", lambda state, task_id: expired.append(task_id))
    end.send((7, True))
    end.send((8, False))
    supervisor.await_reply(state="state")
    assert expired == [7]


def test_a_node_without_its_superexec_ends_and_says_why(supervised, monkeypatch):
    supervisor, end = supervised

    def end_process(reason):
        raise SystemExit(reason)

    monkeypatch.setattr(_flower, "end_process", end_process)
    end.close()
    for call in (supervisor.on_task, supervisor.idle, lambda: supervisor.await_reply("state")):
        with pytest.raises(SystemExit, match=r"status 3.*--executor=flower"):
            call()


def fedagent_node(*flags):
    return subprocess.run(
        [sys.executable, "-c", "from fedagent.cli import main; main()", "node", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_help_has_flowers_flags_and_ours():
    shown = fedagent_node("--help")
    assert shown.returncode == 0
    for flag in (
        "--superlink",
        "--root-certificates",
        "--auth-supernode-private-key",
        "--executor",
        "--job-limit",
    ):
        assert flag in shown.stdout
    assert "--isolation {" not in shown.stdout


def test_isolation_is_refused_with_the_way_out():
    refused = fedagent_node("--insecure", "--isolation=process")
    assert refused.returncode == 2
    assert "run flower-supernode --isolation" in refused.stderr


def test_a_misspelt_flag_is_refused():
    refused = fedagent_node("--insecurely")
    assert refused.returncode == 2
    assert "--insecurely" in refused.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_limit_that_leaves_no_time_is_refused(limit, capsys):
    with pytest.raises(SystemExit):
        node_module._all_arguments().parse_args(["--insecure", f"--job-limit={limit}"])
    assert "--job-limit" in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch):
    """Note how a SuperNode is started, instead of starting it."""
    calls = []

    def run_supernode(arguments, supervision):
        calls.append((arguments, supervision))
        raise SystemExit(0)

    monkeypatch.setattr(_flower, "run_supernode", run_supernode)
    return calls


def gone(monkeypatch, private: PrivateName) -> None:
    """Take a name out of Flower, from its module or from whatever in there has it."""
    module = importlib.import_module(private.module)
    holder = private.holder(module)
    if holder is not module:  # an instance, or a list of parameters: all or nothing
        monkeypatch.setitem(sys.modules, private.module, SimpleNamespace())
    else:
        monkeypatch.delattr(module, private.name.partition(".")[0])


def test_a_node_behind_a_proxy_talks_to_its_own_processes_directly(started, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ |= {"http_proxy": "http://proxy:3128", "no_proxy": "example.org"}
    with pytest.raises(SystemExit):
        node_module.node(["--insecure", "--superlink=there:9092", "--executor=flower"])
    assert started
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    assert os.environ["no_proxy"] == "example.org,localhost,127.0.0.1,::1"


def test_flowers_own_executor_keeps_no_limit_and_the_node_says_so(started, capsys):
    with pytest.raises(SystemExit):
        node_module.node(["--insecure", "--executor=flower", "--job-limit=60"])
    assert started == [(["--insecure"], None)]
    assert "--job-limit=60 has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("private", WARM_NODE.names, ids=str)
def test_without_a_private_name_flowers_own_executor_does_it(private, started, monkeypatch, capsys):
    arguments = ["--insecure", "--superlink=there:9092", "--preload=json"]
    lacking = replace(WARM_NODE)  # which has not looked yet
    gone(monkeypatch, private)
    monkeypatch.setattr("fedagent._flower.supernode.WARM_NODE", lacking)
    with pytest.raises(SystemExit):
        node_module.node(arguments)
    assert started == [(arguments[:2], None)]
    warning = capsys.readouterr().err
    assert warning.count("WARNING") == 1
    assert f"has no {private.module}" in warning
    assert private.name in warning
    assert "every message will start a new process" in warning


@pytest.mark.parametrize("version", ["1.43.0", "9.9.9", "1.40.0"])
def test_a_version_that_was_not_checked_is_warm_only_if_asked(
    version, started, monkeypatch, capsys
):
    monkeypatch.setattr("fedagent._flower.private_use.metadata.version", lambda name: version)
    with pytest.raises(SystemExit):
        node_module.node(["--insecure", "--superlink=there:9092"])
    assert started == [(["--insecure", "--superlink=there:9092"], None)]
    assert f"flwr {version} is not one it was checked with" in capsys.readouterr().err
    assert _flower.why_no_warm_executor(is_asked_for=True) is None


def test_the_superexec_reaches_the_supernode_with_its_tls_secret_and_installation():
    flags = node_module._all_arguments().parse_args(
        [
            "--host",
            "::1",
            "--port",
            "7",
            "--ssl-certfile",
            "c",
            "--ssl-keyfile",
            "k",
            "--ssl-ca-certfile",
            "a",
            "--superexec-auth-secret-file",
            "s",
            "--allow-runtime-dependency-installation",
        ]
    )
    assert node_module._superexec_arguments(flags) == [
        "--runtime-api-address=[::1]:7",
        f"--parent-pid={os.getpid()}",
        "--root-certificates=a",
        "--superexec-auth-secret-file=s",
        "--allow-runtime-dependency-installation",
    ]
