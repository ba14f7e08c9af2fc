"""Executors: the same answers whoever does the work, and nobody suffers for another's crash."""

import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedagent._flower import ErrorCode
from fedagent.errors import ConfigurationError
from fedagent.simulation.workers import processes, worker
from fedagent.simulation.workers.base import Executor
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from fedagent.simulation.workers.work import ClientResult, WorkItem
from tests.simulation.apps import app_of, arrays, count, draw, echo, fail_as_told, metrics, request

EXECUTORS = {
    "inline": Inline,
    "one process": lambda app: Processes(app, 1),
    "two processes": lambda app: Processes(app, 2),
}


def item(number: int, message: Message | None = None, state: RecordDict | None = None) -> WorkItem:
    return WorkItem(
        message or request(number), 1, 1001 + number, {}, {}, state or RecordDict(), seed=number
    )


def told(*words: str) -> list[WorkItem]:
    return [item(n, request(n, do=word)) for n, word in enumerate(words)]


def answers(executor: Executor, items: list[WorkItem]) -> list[ClientResult]:
    futures = [executor.submit(i) for i in items]
    return [executor.result(f) for f in futures]


def pid(answer: ClientResult) -> int:
    return answer.content["metrics"]["pid"]


def is_alive(process_id: int) -> bool:
    """Whether a process runs; a zombie that nobody waited for does not."""
    try:
        with open(f"/proc/{process_id}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def within(limit_s: float, work):
    """Return what `work` returns; fail instead of hanging with it."""
    future = Future()

    def attempt():
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=attempt, daemon=True).start()
    return future.result(timeout=limit_s)


@pytest.fixture(params=EXECUTORS)
def executor_of(request):
    """Builds executors of one kind and closes them."""
    built = []

    def build(answer) -> Executor:
        built.append(EXECUTORS[request.param](app_of(answer)))
        return built[-1]

    yield build
    for executor in built:
        executor.close()


# --- the same answers -----------------------------------------------------------------------------


def test_answers_do_not_depend_on_who_works(executor_of):
    executor = executor_of(draw)
    futures = [executor.submit(item(n)) for n in range(6)]
    drawn = {n: executor.result(futures[n]).content["metrics"] for n in (4, 1, 5, 0, 3, 2)}

    alone = Inline(app_of(draw))
    for n in range(6):
        assert drawn[n] == answers(alone, [item(n)])[0].content["metrics"]


def test_arrays_and_state_travel_unchanged(executor_of):
    state = RecordDict({"kept": metrics(x=3.0)["metrics"]})
    message = request(0, record=arrays(0.1, -2.0, 3e38))
    [answer] = answers(executor_of(echo), [item(0, message, state)])
    assert answer.content["arrays"] == message.content["arrays"]
    assert answer.state == state


def test_state_is_the_nodes_not_the_workers(executor_of):
    executor = executor_of(count)
    first = answers(executor, [item(n) for n in range(4)])
    second = answers(executor, [item(n, state=first[n].state) for n in range(4)])
    assert [a.content["metrics"]["asked"] for a in first + second] == [1] * 4 + [2] * 4


@pytest.mark.parametrize("word", ["raise", "exit"])
def test_a_client_app_that_raises_answers_with_its_message(executor_of, word):
    executor = executor_of(fail_as_told)
    failed, well = answers(executor, told(word, "work"))
    assert failed.content.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert {"raise": "broken sensor", "exit": "the client leaves"}[word] in failed.content.reason
    assert pid(well) > 0


def test_nodes_that_share_a_record_do_not_disturb_each_other(executor_of):
    def empty_it(message, context):
        found = len(message.content["arrays"])
        message.content["arrays"].to_torch_state_dict(keep_input=False)
        message.content["config"]["milestones"].clear()
        return metrics(found=found)

    shared = arrays(1.0, 2.0)
    messages = [request(n, record=shared, milestones=[1, 2]) for n in range(4)]
    for message in messages[1:]:
        message.content["config"] = messages[0].content["config"]
    found = answers(executor_of(empty_it), [item(n, m) for n, m in enumerate(messages)])
    assert [a.content["metrics"]["found"] for a in found] == [1, 1, 1, 1]
    assert list(shared) == ["w"]
    assert messages[0].content["config"]["milestones"] == [1, 2]


def become_two(message, context):
    """Fork, and go on in both processes."""
    os.fork()
    return metrics(pid=os.getpid())


def test_a_client_that_forks_and_goes_on_in_both_answers_once(executor_of):
    executor = executor_of(become_two)
    for _ in range(3):
        done = answers(executor, [item(n) for n in range(4)])
        assert len({pid(answer) for answer in done}) <= 2, "a copy worked on"


def change_everything(message, context):
    """Say what there is, and change it."""
    found = settings()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    np.seterr(all="raise")
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("HOME", None)
    os.chdir("/")
    signal.signal(signal.SIGALRM, lambda *_: None)
    warnings.simplefilter("error")
    return RecordDict({"config": ConfigRecord(found)})


def settings():
    return {
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.empty(0).device),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "numpy": str(np.geterr()),
        "environment": str(sorted(os.environ.items())),
        "folder": os.getcwd(),
        "handler": str(signal.getsignal(signal.SIGALRM)),
        "warnings": str(warnings.filters),
    }


def test_what_a_client_changes_in_its_process_the_next_one_does_not_find(executor_of):
    before = settings()
    first, *later = answers(executor_of(change_everything), [item(n) for n in range(4)])
    assert all(other.content == first.content for other in later)
    assert settings() == before


# --- inline ---------------------------------------------------------------------------------------


def test_inline_leaves_the_callers_generators_alone():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    answers(Inline(app_of(draw)), [item(0), item(1)])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_inline_works_only_when_it_is_asked_for_the_result():
    worked = []
    executor = Inline(app_of(lambda message, context: worked.append(1) or metrics()))
    future = executor.submit(item(0))
    assert not worked
    executor.result(future)
    assert worked == [1]


# --- processes ------------------------------------------------------------------------------------


def test_processes_work_at_the_same_time_in_their_own_processes(tmp_path):
    def wait_for_the_other(message, context):
        mine, other = message.content["config"]["mine"], message.content["config"]["other"]
        open(mine, "w").close()
        assert eventually(lambda: os.path.exists(other))
        return metrics(pid=os.getpid(), threads=torch.get_num_threads())

    with Processes(app_of(wait_for_the_other), 2) as executor:
        first, second = str(tmp_path / "first"), str(tmp_path / "second")
        messages = [request(0, mine=first, other=second), request(1, mine=second, other=first)]
        a, b = answers(executor, [item(n, m) for n, m in enumerate(messages)])
    assert len({pid(a), pid(b), os.getpid()}) == 3
    assert a.content["metrics"]["threads"] == 1


def test_what_is_due_first_is_done_first(tmp_path):
    """Whether it is at hand at the worker already or still waits here."""
    log, gate = tmp_path / "log", tmp_path / "gate"

    def note(message, context):
        assert eventually(gate.exists)
        with open(log, "a") as lines:
            print(message.content["config"]["due"], file=lines)
        return metrics()

    dues = [0, 3, 2, 1, 9, 8, 7, 6, 5, 4]
    with Processes(app_of(note), 1) as executor:
        futures = [executor.submit(item(n, request(n, due=due)), due) for n, due in enumerate(dues)]
        gate.touch()
        for future in futures:
            executor.result(future)
    assert [int(line) for line in log.read_text().split()] == sorted(dues)


def test_only_the_item_of_a_killed_worker_is_lost():
    with Processes(app_of(fail_as_told), 2) as executor:
        done = answers(executor, told("work", "work", "die", "work", "work", "work"))
        later = answers(executor, told("work", "work", "work"))
    dead = done.pop(2)
    assert dead.content.code == ErrorCode.CLIENT_APP_CRASHED
    assert "died" in dead.content.reason
    assert all(pid(a) > 0 for a in done + later)


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_loses_nothing():
    with Processes(app_of(fail_as_told), 1) as executor:
        [first] = answers(executor, told("work"))
        for _ in range(3):
            [child] = multiprocessing.active_children()
            child.kill()
            child.join()
            [answer] = answers(executor, told("work"))
            assert pid(answer) != pid(first)


def test_what_kills_a_worker_when_it_is_received_fails_after_a_second_try(tmp_path):
    received = tmp_path / "received"
    poison = WorkItem(request(0), 1, 1, {}, {"p": _KillsItsReader(str(received))}, RecordDict(), 0)
    with Processes(app_of(echo), 1) as executor:
        answers(executor, [item(1)])
        bad, good = executor.submit(poison), executor.submit(item(2))
        assert (
            within(120, lambda: executor.result(bad)).content.code == ErrorCode.CLIENT_APP_CRASHED
        )
        assert "arrays" in executor.result(good).content
    assert received.read_text() == "xx"


class _KillsItsReader:
    def __init__(self, note: str) -> None:
        self.note = note

    def __reduce__(self):
        return _note_and_die, (self.note,)


def _note_and_die(note: str) -> None:
    with open(note, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_workers_node_keeps_the_state_it_had():
    def die_after_a_change(message, context):
        context.state["half"] = metrics()["metrics"]
        os.kill(os.getpid(), signal.SIGKILL)

    before = RecordDict({"kept": metrics(x=1.0)["metrics"]})
    with Processes(app_of(die_after_a_change), 1) as executor:
        [answer] = answers(executor, [item(0, state=before)])
    assert answer.state == before
    assert "half" not in answer.state


def test_workers_that_die_all_at_once_again_and_again_are_all_noticed():
    """Two workers started at the same moment must not hold each other's pipes open."""

    def work():
        with Processes(app_of(fail_as_told), 3) as executor:
            return answers(executor, told(*["die"] * 24, "work"))

    *dead, well = within(120, work)
    assert {a.content.code for a in dead} == {ErrorCode.CLIENT_APP_CRASHED}
    assert pid(well) > 0


def test_an_item_that_cannot_travel_fails_alone_and_says_so():
    cannot = WorkItem(request(0), 1, 1, {}, {"lock": threading.Lock()}, RecordDict(), 0)
    with Processes(app_of(echo), 1) as executor:
        bad, good = executor.submit(cannot), executor.submit(item(1))
        with pytest.raises(TypeError, match="pickle"):
            within(120, lambda: executor.result(bad))
        assert "arrays" in executor.result(good).content


@pytest.mark.parametrize("busy", [False, True])
def test_no_process_is_left_after_close(busy):
    executor = Processes(app_of(fail_as_told), 2)
    processes = {pid(a) for a in answers(executor, told(*["work"] * 8))}
    if busy:
        for i in told(*["work", "die"] * 20):
            executor.submit(i)
    started = set(multiprocessing.active_children())
    executor.close()
    assert processes
    assert not any(is_alive(p) for p in processes)
    assert eventually(lambda: not started & set(multiprocessing.active_children()))


def test_closing_in_the_middle_of_long_work_does_not_wait_for_it():
    def sleep(message, context):
        time.sleep(60)

    before = set(multiprocessing.active_children())
    executor = Processes(app_of(sleep), 2)
    futures = [executor.submit(item(n)) for n in range(12)]  # more than two have at hand
    within(120, executor.close)
    assert not futures[-1].done()
    assert set(multiprocessing.active_children()) <= before, "a worker was replaced in vain"


def test_no_process_starts_before_there_is_work():
    before = len(multiprocessing.active_children())
    with Processes(app_of(echo), 2) as executor:
        assert len(multiprocessing.active_children()) == before
        executor.submit(item(0))
        assert len(multiprocessing.active_children()) == before + 2


def test_closing_while_a_dead_worker_is_being_replaced_leaves_nobody():
    for _ in range(5):
        before = set(multiprocessing.active_children())
        executor = Processes(app_of(fail_as_told), 2)
        answers(executor, told("die", "die"))  # known before the replacements are up
        executor.close()
        assert set(multiprocessing.active_children()) <= before


def test_workers_leave_when_their_parent_is_killed():
    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.get_context("fork").Process(target=_use_workers, args=(theirs,))
    parent.start()
    assert ours.poll(60)
    workers = ours.recv()
    assert len(workers) == 3

    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    assert eventually(lambda: not any(is_alive(p) for p in workers))


def _use_workers(connection):
    executor = Processes(app_of(fail_as_told), 3)
    answers(executor, told("die", "work", "die", "work"))  # some are younger than others
    assert eventually(lambda: all(is_alive(w._process.pid) for w in executor._workers))
    connection.send([w._process.pid for w in executor._workers])
    time.sleep(60)


# --- where processes cannot be forked -------------------------------------------------------------


@pytest.fixture(params=["macOS", "cuda"])
def _unforkable(request, monkeypatch):
    if request.param == "macOS":
        monkeypatch.setattr(processes, "sys", SimpleNamespace(platform="darwin"))
    else:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)


@pytest.mark.usefixtures("_unforkable")
def test_an_app_object_is_refused_where_processes_cannot_be_forked():
    with (
        Processes(app_of(echo), 1) as executor,
        pytest.raises(ConfigurationError, match="'module:attribute', or use workers=0"),
    ):
        executor.submit(item(0))


def test_spawned_workers_import_the_app_themselves(monkeypatch):
    monkeypatch.setattr(processes, "_can_fork", lambda: False)
    with Processes("tests.simulation.apps:counting", 1) as executor:
        [answer] = answers(executor, [item(0)])
    assert answer.content["metrics"]["asked"] == 1


def test_there_must_be_a_worker():
    with pytest.raises(ConfigurationError, match="workers=0"):
        Processes(app_of(echo), 0)


def test_an_app_that_cannot_be_loaded_is_refused_before_any_work():
    for build in (Inline, lambda app: Processes(app, 1)):
        with pytest.raises(ConfigurationError, match="nowhere"):
            build("nowhere:app")


def test_a_result_is_fetched_once():
    executor = Inline(app_of(echo))
    future: Future = executor.submit(item(0))
    executor.result(future)
    with pytest.raises(KeyError):
        executor.result(future)


def test_a_worker_that_never_comes_up_is_replaced(monkeypatch):
    monkeypatch.setitem(worker._STARTUP_S, "fork", 1.0)
    serve, is_first = worker._serve, multiprocessing.Value("i", 1)

    def stuck_once(*arguments):
        with is_first.get_lock():
            stuck, is_first.value = is_first.value, 0
        if stuck:
            time.sleep(60)
        serve(*arguments)

    monkeypatch.setattr(worker, "_serve", stuck_once)
    with Processes(app_of(echo), 1) as executor:
        [answer] = answers(executor, [item(0)])
    assert is_first.value == 0
    assert not isinstance(answer.content, Error)
