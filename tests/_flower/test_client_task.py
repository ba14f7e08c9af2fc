"""One task in a process that is warm already."""

import hashlib
import importlib
import logging
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import (
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec

from fedagent._flower import (
    UNANSWERED,
    AppBundle,
    ErrorCode,
    import_client_runtime,
    load_installed_app,
    run_client_app,
)
from tests._flower.message import request


def execution(task_type=TaskType.CLIENT_APP):
    return ExecutionSpec(task_type, "127.0.0.1:9", "token", True, None, False, None, True, 5, "f")


@pytest.fixture
def task(monkeypatch):
    """Do one task: its input is at hand, its app installed, and its reply noted."""
    import_client_runtime()
    module = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    content = b"a bundle"
    bundle = AppBundle(
        "me/app",
        "1.0.0",
        hashlib.sha256(content).hexdigest(),
        Context(1, 2, {"partition-id": 0}, RecordDict(), {"lr": 0.1}),
    )
    noted = {
        "replies": [],
        "installed": 0,
        "finished": 0,
        "handlers": signal.getsignal(signal.SIGTERM),
    }

    def install(*_, **__):
        noted["installed"] += 1

    app = ClientApp()

    @app.train()
    def train(message, context):
        if "raises" in noted:
            raise noted["raises"]
        assert context.state == RecordDict({"kept": MetricRecord({"x": 1})})
        returns = noted.get("returns", lambda message: Message(message.content, reply_to=message))
        return returns(message)

    def pull(client):
        run = SimpleNamespace(fab_id="me/app", fab_version="1.0.0", run_id=1)
        fab = SimpleNamespace(hash_str=bundle.fab_hash, content=content)
        state = RecordDict({"kept": MetricRecord({"x": 1})})
        return request(), Context(1, 2, {"partition-id": 0}, state, {"lr": 0.1}), run, fab

    monkeypatch.setattr(module, "pull_task_input", pull)
    monkeypatch.setattr(module, "install_from_fab", install)
    monkeypatch.setattr(module, "get_load_client_app_fn", lambda **_: lambda *_: app)

    def push(client, reply, context):
        if noted.get("fails") or (reply.has_content() and not reply.object_id):
            raise httpx.ConnectError("nobody is there")
        noted["replies"].append(reply)

    def finish(**_):
        noted["finished"] += 1

    monkeypatch.setattr(module, "push_message", push)
    monkeypatch.setattr(module, "push_task_output", finish)
    monkeypatch.setattr(
        module,
        "HeartbeatSender",
        lambda _: SimpleNamespace(start=lambda: None, stop=lambda: None, is_running=True),
    )
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
    yield (
        lambda loaded: (run_client_app(execution(), loaded, seen.append, ends=False), seen),
        (
            noted,
            bundle,
        ),
    )
    for sign, handler in previous.items():
        signal.signal(sign, handler)


seen: list[AppBundle] = []


def test_a_task_is_done_in_this_process_and_says_which_app_it_was_for(task):
    seen.clear()
    do, (noted, bundle) = task
    assert do(None) == (0, [bundle])
    assert [reply.has_content() for reply in noted["replies"]] == [True]
    assert noted["installed"] == 1


class Panic(BaseException):
    """What extensions written in Rust raise."""


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, KeyboardInterrupt, Panic])
def test_whatever_the_app_raises_is_a_reply(task, kind):
    do, (noted, _) = task
    noted["raises"] = kind("no \x1b data")
    do(None)
    [reply] = noted["replies"]
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert rf"{kind.__name__}: no \x1b data" in reply.error.reason
    assert reply.error.reason.isprintable()


class Unsendable(ArrayRecord):
    def deflate(self):
        raise OSError("it does not \x1b travel")


def unsendable(message):
    return Message(RecordDict({"arrays": Unsendable()}), reply_to=message)


def reply_to_another(message):
    reply = Message(message.content, reply_to=message)
    reply.metadata.__dict__["_reply_to_message_id"] = "f" * 64
    return reply


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda _: None, "returned None, not a Message"),
        (lambda _: "done", "returned a value of type str, not a Message"),
        (reply_to_another, "a reply to its message"),
        (unsendable, r"does not \x1b travel"),
    ],
)
def test_what_is_no_reply_or_cannot_be_sent_is_an_error_reply(task, returned, words):
    do, (noted, _) = task
    noted["returns"] = returned
    status, _ = do(None)
    [reply] = noted["replies"]
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert words in reply.error.reason
    assert status != UNANSWERED
    assert noted["finished"] == 1


def test_a_task_without_a_reply_is_not_said_to_be_finished(task):
    do, (noted, _) = task
    noted["fails"] = True
    assert do(None)[0] == UNANSWERED
    assert noted["finished"] == 0


def test_the_log_has_the_place_of_an_error_and_no_raw_text(task, caplog):
    do, (noted, _) = task
    noted["raises"] = ValueError("\x1b[2J\nfedagent: all is well" + "x" * 10_000)
    with caplog.at_level(logging.ERROR, "flwr"):
        do(None)
    assert "test_client_task.py" in caplog.text
    assert "ValueError" in caplog.text
    assert "\x1b" not in caplog.text
    assert "\nfedagent: all" not in caplog.text
    assert "x" * 1000 not in caplog.text


def test_an_app_that_is_loaded_is_not_installed_again(task):
    do, (noted, bundle) = task
    do(bundle)
    assert noted["installed"] == 0
    do(replace(bundle, fab_hash="another"))
    assert noted["installed"] == 1


def test_an_installed_app_is_found_as_flower_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "apps" / f"me.app.1.0.0.{'f' * 8}"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1.0.0"\n[tool.flwr.app]\npublisher = "me"\n'
        '[tool.flwr.app.components]\nclientapp = "warm_toy:app"\nserverapp = "warm_toy:app"\n'
    )
    (folder / "warm_toy.py").write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    bundle = AppBundle("me/app", "1.0.0", "f" * 64, Context(1, 2, {}, RecordDict(), {}))
    assert isinstance(load_installed_app(bundle), ClientApp)
