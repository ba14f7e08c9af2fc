"""One test per private touch point of fedagent/_flower.py: it fails when Flower changes."""

import hashlib
import importlib
import inspect
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.app.message.typeddict import TypedDict
from flwr.clientapp import ClientApp
from flwr.common import constant
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedagent import _flower
from fedagent._flower import (
    DRIVER_NODE_ID,
    AppBundle,
    ErrorCode,
    Run,
    Supervision,
    aggregate_metricrecords,
    empty_run,
    entries_of,
    expire_task,
    failed_reply,
    identify_process,
    import_client_runtime,
    is_for_client_app,
    launch_accepted,
    launch_cold,
    load_installed_app,
    pulls_over_network,
    quick_entries,
    record_of,
    reply_from,
    run_client_app,
    run_superexec,
    run_supernode,
    set_message_id,
    supernode_arguments,
    why_no_warm_executor,
    with_content,
)
from fedagent.admission.gate import FAILURES
from fedagent.simulation import SimulationGrid

# As modules: the packages have functions of the same names.
start_client_internal = importlib.import_module("flwr.supernode.start_client_internal")
run_superexec_module = importlib.import_module("flwr.supercore.superexec.run_superexec")


@pytest.fixture(autouse=True)
def _identity():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    yield
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)


def codes(of: type) -> dict[str, int]:
    return {name: value for name, value in vars(of).items() if name.isupper()}


def request() -> Message:
    return Message(RecordDict({"config": ConfigRecord({"lr": 0.1})}), 7, "train", group_id="3")


def test_error_codes_are_flowers():
    assert codes(ErrorCode) == codes(constant.ErrorCode)


def test_every_error_code_but_unknown_has_a_name_in_the_counts():
    assert set(FAILURES) == set(codes(constant.ErrorCode).values()) - {ErrorCode.UNKNOWN}


def test_the_driver_is_the_superlink():
    assert DRIVER_NODE_ID == constant.SUPERLINK_NODE_ID


def test_an_empty_run_has_its_id_and_no_app():
    run = empty_run(42)
    assert isinstance(run, Run)
    assert (run.run_id, run.fab_hash, run.override_config) == (42, "", {})


def test_flowers_grid_is_typed_with_the_same_run():
    assert inspect.signature(Grid.set_run).parameters["run"].annotation in (Run, "Run")


def test_messages_speak_for_the_process_that_was_identified():
    identify_process(run_id=11, node_id=12, task_id=13)
    metadata = request().metadata
    assert (metadata.run_id, metadata.src_node_id, metadata.src_task_id) == (11, 12, 13)


@pytest.mark.parametrize("name", ["run_id", "node_id", "task_id"])
def test_every_part_of_the_identity_is_needed(name, monkeypatch):
    """When Flower needs one no longer, or another one, `identify_process` is out of date."""
    monkeypatch.setattr(TaskIdentity, f"_{name}", None)
    with pytest.raises(RuntimeError, match=name):
        request()


def test_a_message_id_that_was_set_is_what_a_reply_refers_to():
    message = request()
    assert message.metadata.message_id == ""
    set_message_id(message, "sim-5")
    assert message.metadata.message_id == "sim-5"
    assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "sim-5"
    assert Message(Error(5), reply_to=message).metadata.reply_to_message_id == "sim-5"


def test_a_message_with_other_content_keeps_its_metadata():
    message = request()
    set_message_id(message, "sim-5")
    other = with_content(message, RecordDict({"metrics": MetricRecord({"loss": 1.0})}))
    assert vars(other.metadata) == vars(message.metadata)
    assert list(other.content) == ["metrics"]
    assert list(message.content) == ["config"]


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (RecordDict, {"metrics": MetricRecord({"loss": 1.0}), "config": ConfigRecord()}),
        (ArrayRecord, {"w": Array(np.ones(3))}),
        (ConfigRecord, {"lr": 0.1, "name": "x"}),
        (MetricRecord, {"loss": [1.0, 2.0]}),
    ],
)
def test_record_of_is_what_the_constructor_makes(kind, entries):
    made, expected = record_of(kind, entries), kind(entries)
    assert made == expected
    assert type(made) is kind
    assert made.object_id == expected.object_id  # all that Flower would send, and its children
    assert entries_of(made) == entries
    made["more"] = next(iter(entries.values()))
    assert "more" not in entries
    with pytest.raises(TypeError):
        made["more"] = object()


@pytest.mark.parametrize("kind", [RecordDict, ArrayRecord, ConfigRecord, MetricRecord])
def test_quick_entries_are_checked_as_flower_checks_them(kind):
    fitting = {RecordDict: ConfigRecord(), ArrayRecord: Array(np.ones(3))}.get(kind, 0.5)

    def outcome(key, value):
        record = kind()
        try:
            record[key] = value
        except (TypeError, ValueError) as error:
            return type(error), str(error)
        return record

    attempts = [("a", fitting), ("a", object()), ("a", [1, "mixed"]), (1, fitting)]
    expected = [outcome(*attempt) for attempt in attempts]
    with quick_entries():
        assert [outcome(*attempt) for attempt in attempts] == expected
    assert vars(TypedDict)["__setitem__"].__module__ == TypedDict.__module__


def test_an_error_in_place_of_a_reply_names_the_message_it_answers():
    reply = failed_reply("m7", ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "torn")
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (4, "torn")
    assert reply.metadata.reply_to_message_id == "m7"


def test_the_grid_of_a_deployment_is_known_and_pulls_by_message_id():
    grid = HttpGrid(token="t")
    assert pulls_over_network(grid)
    assert not pulls_over_network(SimulationGrid.__new__(SimulationGrid))
    assert list(inspect.signature(grid.pull_messages).parameters) == ["message_ids"]


def test_a_reply_that_never_travelled_looks_like_a_nodes():
    reply = reply_from(7, RecordDict({"metrics": MetricRecord({"loss": 1.0})}))
    metadata = reply.metadata
    assert (metadata.src_node_id, metadata.dst_node_id) == (7, DRIVER_NODE_ID)
    assert (metadata.run_id, metadata.message_type, metadata.ttl) == (1, "train", DEFAULT_TTL)
    assert abs(metadata.created_at - time.time()) < 60
    assert reply.has_content()
    assert not reply.has_error()
    assert reply.content["metrics"]["loss"] == 1.0


def test_metrics_are_averaged_by_weight_without_the_weight():
    records = [
        RecordDict({"metrics": MetricRecord({"n": 1, "loss": 4.0, "history": [0.0, 8.0]})}),
        RecordDict({"metrics": MetricRecord({"n": 3, "loss": 8.0, "history": [4.0, 0.0]})}),
    ]
    averaged = aggregate_metricrecords(records, "n")
    assert dict(averaged) == {"loss": 7.0, "history": [3.0, 2.0]}


def test_the_metric_aggregation_is_the_one_fedavg_uses():
    assert FedAvg().train_metrics_aggr_fn is aggregate_metricrecords
    assert FedAvg().evaluate_metrics_aggr_fn is aggregate_metricrecords


# --- a SuperNode whose ClientApps start warm ---


def test_this_flower_can_be_used_with_a_warm_executor():
    assert why_no_warm_executor() is None


def test_the_supernode_sleeps_in_the_places_that_are_replaced():
    source = inspect.getsource(start_client_internal)
    assert re.findall(r"time\.sleep\((.*)\)", source) == ["3", "0.5", "0.5"]
    assert re.findall(r"\btime\.(\w+)", source) == ["sleep"] * 3, "and uses time for nothing else"


def test_the_superexec_waits_in_one_place():
    assert re.findall(r"\btime\.(\w+)", inspect.getsource(run_superexec_module)) == ["sleep"]


@pytest.fixture
def supernode(monkeypatch):
    """Run a SuperNode whose main loop gets `run_ids` from its SuperLink, then ends."""

    def run(run_ids, **calls):
        command = importlib.import_module("flwr.supernode.cli.flower_supernode")
        state = object()
        factory = type("Factory", (), {"state": staticmethod(lambda: state)})
        pulled = iter(run_ids)
        for module, name in (
            (start_client_internal, "time"),
            (command, "start_client_internal"),
        ):
            monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
        monkeypatch.setattr(
            start_client_internal, "_pull_and_store_message", lambda **_: next(pulled)
        )

        def main_loop(**_):
            for _ in run_ids:
                if start_client_internal._pull_and_store_message() is None:
                    start_client_internal.time.sleep(3)
                else:
                    start_client_internal.time.sleep(0.5)

        monkeypatch.setattr(start_client_internal, "start_client_internal", main_loop)
        monkeypatch.setattr(
            command,
            "flower_supernode",
            lambda: command.start_client_internal(state_factory=factory),
        )
        monkeypatch.setattr(sys, "argv", sys.argv)
        with pytest.raises(SystemExit):
            run_supernode(["--insecure"], Supervision(**calls))
        assert sys.argv == ["flower-supernode", "--insecure"]
        return state

    return run


def test_a_supervised_supernode_tells_of_tasks_and_waits_as_it_is_told(supernode):
    heard = []
    state = supernode(
        [None, 7, None],
        on_task=lambda: heard.append("task"),
        idle=lambda: heard.append("idle"),
        await_reply=heard.append,
    )
    assert heard == ["idle", "task", state, "idle"]


def test_the_flags_of_a_supernode_are_flowers():
    flags = supernode_arguments().parse_args(["--insecure", "--port", "7"])
    assert (flags.insecure, flags.port, flags.isolation) == (True, 7, "subprocess")


@pytest.fixture
def claimed():
    """Return a SuperNode's state with a message "m1", and its task, which has been claimed."""
    state = InMemoryNodeState(ObjectStoreFactory().store())
    message = request()
    set_message_id(message, "m1")
    state.store_message(message)
    task_id = state.create_task("flwr-clientapp", run_id=1)
    state.claim_task(task_id)
    return state, task_id


@pytest.mark.parametrize("was_pulled", [True, False])
def test_a_supernode_answers_at_once_for_a_task_whose_process_died(claimed, was_pulled):
    state, task_id = claimed
    state.activate_task(task_id)
    if was_pulled:
        state.get_messages_legacy(is_reply=False)
        state.record_message_processing_start("m1")
    assert state.get_messages_legacy(is_reply=True) == []
    expire_task(state, task_id)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert reply.metadata.reply_to_message_id == "m1"
    expire_task(state, task_id)  # which was answered: nothing happens
    assert state.get_messages_legacy(is_reply=True) == []


def test_a_task_whose_process_died_before_it_began_is_started_again(claimed):
    state, task_id = claimed
    expire_task(state, task_id)
    assert state.get_messages_legacy(is_reply=True) == []
    assert state.claim_task(task_id) is not None
    assert state.get_messages_legacy(is_reply=False)[0].metadata.message_id == "m1"


def test_the_superexec_asks_our_executor_and_waits_as_we_say(monkeypatch):
    waits = []

    def one_turn():
        executor = run_superexec_module.get_executor("subprocess", executor_config=None)
        run_superexec_module.time.sleep(1.0)
        assert executor == "ours"

    command = importlib.import_module("flwr.supercore.cli.flower_superexec")
    for name in ("get_executor", "time"):
        monkeypatch.setattr(run_superexec_module, name, getattr(run_superexec_module, name))
    monkeypatch.setattr(command, "flower_superexec", one_turn)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit):
        run_superexec(["--insecure"], "ours", waits.append)
    assert (waits, sys.argv) == ([1.0], ["flower-superexec", "--insecure"])


def execution(task_type=TaskType.CLIENT_APP):
    return ExecutionSpec(task_type, "127.0.0.1:9", "token", True, None, False, None, True, 5, "f")


def test_only_tasks_of_client_apps_are_warm():
    assert is_for_client_app(execution())
    assert not is_for_client_app(execution(TaskType.AGENT_APP))


def test_an_executor_says_that_it_has_accepted_and_so_does_flowers(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    assert launch_cold(execution()) == launch_accepted()
    assert started[0][0] == "flwr-clientapp"


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
    noted = {"replies": [], "installed": 0, "handlers": signal.getsignal(signal.SIGTERM)}

    def install(*_, **__):
        noted["installed"] += 1

    app = ClientApp()

    @app.train()
    def train(message, context):
        assert context.state == RecordDict({"kept": MetricRecord({"x": 1})})
        return Message(message.content, reply_to=message)

    def pull(client):
        run = SimpleNamespace(fab_id="me/app", fab_version="1.0.0", run_id=1)
        fab = SimpleNamespace(hash_str=bundle.fab_hash, content=content)
        state = RecordDict({"kept": MetricRecord({"x": 1})})
        return request(), Context(1, 2, {"partition-id": 0}, state, {"lr": 0.1}), run, fab

    monkeypatch.setattr(module, "pull_task_input", pull)
    monkeypatch.setattr(module, "install_from_fab", install)
    monkeypatch.setattr(module, "get_load_client_app_fn", lambda **_: lambda *_: app)
    monkeypatch.setattr(module, "push_message", lambda c, reply, x: noted["replies"].append(reply))
    monkeypatch.setattr(module, "push_task_output", lambda **_: None)
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


def test_a_process_that_has_to_end_says_so_and_fails():
    # In a process of its own: Flower ends it the hard way after some seconds.
    words = "from fedagent import _flower; _flower.end_process('the pipe broke')"
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the pipe broke" in done.stdout + done.stderr


def test_everything_exported_is_tested_here():
    tested = {*globals(), "end_process"} & {*_flower.__all__}
    assert tested == {*_flower.__all__}


def test_nobody_pays_for_the_deployment_who_does_not_use_it():
    module = "flwr.superlink.grid.http_grid"
    words = f"import fedagent, fedagent.simulation, sys; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
