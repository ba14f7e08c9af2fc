"""One client's work: private, reproducible, and its failures are the node's own."""

import json
import logging
import os
import random
import signal
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedagent._flower import ErrorCode
from fedagent.errors import ConfigurationError
from fedagent.simulation.workers.randomness import reproducible
from fedagent.simulation.workers.work import (
    WorkItem,
    load_app,
    private_copy,
    run_client,
    run_clients,
)
from tests.simulation import apps
from tests.simulation.apps import app_of, count, draw, metrics, request


class Panic(BaseException):
    """What extensions written in Rust raise."""


def item(
    message: Message | None = None, seed: int = 5, state: RecordDict | None = None
) -> WorkItem:
    return WorkItem(
        message=message or request(0),
        run_id=1,
        node_id=1001,
        node_config={"partition-id": 4},
        run_config={"lr": 0.5},
        state=state or RecordDict(),
        seed=seed,
    )


def global_generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


# --- run_client -----------------------------------------------------------------------------


def test_the_client_app_sees_its_context_and_its_message():
    seen = {}

    def answer(message, context):
        seen.update(context.node_config, **context.run_config, node_id=context.node_id)
        seen["config"] = dict(message.content["config"])
        return metrics()

    run_client(app_of(answer), item(request(0, momentum=0.9)))
    assert seen == {"partition-id": 4, "lr": 0.5, "node_id": 1001, "config": {"momentum": 0.9}}


def test_state_comes_back_and_can_be_handed_in_again():
    app = app_of(count)
    first = run_client(app, item())
    second = run_client(app, item(state=first.state))
    assert [a.content["metrics"]["asked"] for a in (first, second)] == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        kind("broken sensor")
        for kind in (ValueError, MemoryError, SystemExit, GeneratorExit, KeyboardInterrupt, Panic)
    ],
)
def test_what_the_client_app_raises_is_the_nodes_failure(error):
    def answer(message, context):
        context.state["tried"] = MetricRecord({"n": 1})
        raise error

    answered = run_client(app_of(answer), item())
    assert answered.content.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert answered.content.reason.startswith(f"{type(error).__name__}: broken sensor")
    assert "test_work.py" in answered.content.reason
    assert answered.state["tried"]["n"] == 1


def test_an_exception_that_will_not_say_what_it_is_is_the_nodes_failure():
    class MuteError(Exception):
        def __str__(self):
            raise Panic

    def answer(message, context):
        raise MuteError

    reason = run_client(app_of(answer), item()).content.reason
    assert reason.startswith("MuteError: its text cannot be had: __str__ raised Panic (")


@pytest.mark.parametrize("says", ["raises", "replies"])
def test_what_a_client_says_is_cut_and_forges_no_line(says):
    text = "\x1b[2Jfine\nWARNING: all is well " + "x" * 10**6

    def answer(message, context):
        if says == "raises":
            raise ValueError(text)
        return Message(Error(8, text), reply_to=message)

    app = ClientApp()
    app.train()(answer)
    reason = run_client(app, item()).content.reason
    assert reason.isprintable()
    assert len(reason) < 1000


def test_ctrl_c_is_not_the_nodes_failure():
    def answer(message, context):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        with pytest.raises(KeyboardInterrupt):
            run_client(app_of(answer), item())
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_message_type_that_nobody_handles_is_an_error_answer():
    answer = run_client(ClientApp(), item())
    assert answer.content.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "train" in answer.content.reason


def test_an_error_reply_of_the_client_app_passes_as_it_is():
    app = ClientApp()
    app.train()(lambda message, context: Message(Error(77, "no data"), reply_to=message))
    answer = run_client(app, item())
    assert (answer.content.code, answer.content.reason) == (77, "no data")


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "None"), ({}, "a value of type dict"), (7, "a value of type int")]
)
def test_a_client_app_that_returns_no_message_is_told_so(returned, said):
    app = ClientApp()
    app.train()(lambda message, context: returned)
    error = run_client(app, item()).content
    assert error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert f"for 'train' returned {said}, not a Message: it must return" in error.reason


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.nn.Linear(3, 4)(torch.ones(5)),
        lambda: np.zeros(3) @ np.zeros(4),
        lambda: json.loads("{"),
        lambda: ArrayRecord({"w": 3}),
        lambda: None + 1,
    ],
)
def test_an_error_names_the_users_line_not_a_librarys(call, caplog):
    def answer(message, context):
        return call()

    with caplog.at_level(logging.DEBUG, "flwr.fedagent"):
        reason = run_client(app_of(answer), item()).content.reason
    assert f"({__file__}:{call.__code__.co_firstlineno})" in reason
    assert any("Traceback" in (r.exc_text or "") for r in caplog.records)


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    app = app_of(draw)
    a, b, c = (run_client(app, item(seed=s)).content["metrics"] for s in (5, 5, 6))
    assert a == b
    assert all(a[name] != c[name] for name in "abc")


# --- private_copy ---------------------------------------------------------------------------------


def test_a_private_copy_can_be_taken_apart():
    message = request(0, milestones=[1, 2], lr=0.1)
    message.content["loss"] = MetricRecord({"history": [0.5]})
    copy = private_copy(message)
    assert copy.content == message.content
    assert copy.metadata.dst_node_id == 1001

    copy.content["arrays"].to_torch_state_dict(keep_input=False)
    copy.content["config"]["milestones"].clear()
    copy.content["config"]["lr"] = 9.0
    copy.content["loss"]["history"].append(9.0)
    del copy.content["config"]

    assert list(message.content["arrays"]) == ["w"]
    assert dict(message.content["config"]) == {"milestones": [1, 2], "lr": 0.1}
    assert message.content["loss"]["history"] == [0.5]


def test_a_private_copy_shares_the_array_bytes():
    message = request(0)
    assert private_copy(message).content["arrays"]["w"].data is message.content["arrays"]["w"].data


# --- reproducible ---------------------------------------------------------------------------------


def test_global_generators_are_seeded_inside_and_restored_outside():
    before = global_generators()
    draws = []
    for _ in range(2):
        with reproducible(3):
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert global_generators() == before


def test_generators_and_threads_are_restored_after_an_exception():
    before = global_generators()
    torch.set_num_threads(2)
    try:
        with suppress(ValueError), reproducible(3):
            inside = torch.get_num_threads()
            random.random()
            raise ValueError
        assert (inside, torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(1)
    assert global_generators() == before


@pytest.mark.parametrize("seed", [0, 2**32, 2**64 - 1])
def test_every_64_bit_seed_works(seed):
    with reproducible(seed):
        assert 0 <= random.random() < 1


# --- load_app -------------------------------------------------------------------------------------


def test_an_app_is_loaded_by_name_or_passed_through():
    assert load_app("tests.simulation.apps:counting", ClientApp) is apps.counting
    assert load_app(apps.counting, ClientApp) is apps.counting


def test_the_attribute_is_app_unless_named():
    from clients.app import app

    assert load_app("clients.app", ClientApp) is app


@pytest.mark.parametrize(
    ("reference", "kind", "named"),
    [
        ("no.such.module:app", ClientApp, "no.such.module"),
        ("tests.simulation.apps:nothing", ClientApp, "nothing"),
        ("tests.simulation.apps:counting", ServerApp, "is a ClientApp, not a ServerApp"),
        (42, ClientApp, "is a int, not a ClientApp"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_its_name(reference, kind, named):
    with pytest.raises(ConfigurationError, match=named):
        load_app(reference, kind)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a package of the user's; return its name and folder."""
    monkeypatch.syspath_prepend(tmp_path)
    numbers = iter(range(100))

    def write(**sources: str):
        name = f"users_app_{next(numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        for module, source in sources.items():
            (folder / f"{module}.py").write_text(source)
        return name, folder

    yield write
    for name in [name for name in sys.modules if name.startswith("users_app_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("import numpy\n\nimport no_such_package_of_theirs\n", 3, "no_such_package_of_theirs"),
        ("from numpy import no_such_name\n", 1, "ImportError: cannot import name 'no_such_name'"),
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f(:\n    pass\n", 1, "SyntaxError"),
        ("import numpy\nnumpy.zeros(-1)\n", 2, "ValueError"),
        # the line is the user's, not the library's that it called
        ("import json\n\n\njson.loads('{')\n", 4, "JSONDecodeError"),
    ],
)
@pytest.mark.parametrize("is_deeper", [False, True], ids=["itself", "what it imports"])
def test_an_app_whose_import_fails_says_so_with_its_own_line(
    package, source, line, says, is_deeper
):
    if is_deeper:
        app = "from .task import *\n"
        name, folder = package(client=app, task=source)
        place = folder / "task.py"
    else:
        name, folder = package(client=source)
        place = folder / "client.py"
    with pytest.raises(ConfigurationError) as refusal:
        load_app(f"{name}.client:app", ClientApp)
    assert f"{place}:{line}" in str(refusal.value)
    assert says in str(refusal.value)
    assert "module:attribute" not in str(refusal.value)
    assert refusal.value.__cause__ is not None


def test_a_module_that_is_not_there_is_told_from_one_whose_import_fails(package):
    name, _ = package()
    for reference in (f"{name}.client:app", f"no_{name}.client:app"):
        with pytest.raises(ConfigurationError, match="run from the folder that holds the module"):
            load_app(reference, ClientApp)


def test_an_attribute_that_is_not_there_names_those_that_are(package):
    name, _ = package(
        client="from flwr.clientapp import ClientApp\nmine = ClientApp()\nother = 3\n"
    )
    with pytest.raises(ConfigurationError, match="has no 'app'; its ClientApps are: mine"):
        load_app(f"{name}.client", ClientApp)


# --- run_clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, SystemExit, Panic])
def test_what_ends_a_batch_ends_nothing_else(kind):
    class TrainsTogether:
        def __call__(self, message, context):
            if message.content["config"].get("do") == "raise":
                raise kind("broken sensor")
            return Message(count(message, context), reply_to=message)

        def train_together(self, requests, begin):
            return {index: self(*request) for index, request in enumerate(requests)}

    words = ["work", "raise", "work"]
    done = run_clients(TrainsTogether(), [item(request(0, do=word)) for word in words])
    assert done[1].content.reason.startswith(f"{kind.__name__}: broken sensor")
    assert [answer.content["metrics"]["asked"] for answer in (done[0], done[2])] == [1, 1]
