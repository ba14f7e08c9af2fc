"""Replies over a network: nobody blocks anybody, and one that cannot be read is one failure."""

import threading
import time

import pytest
import torch
from flwr.app import ArrayRecord

from fedagent import FedAsync
from fedagent._flower import DRIVER_NODE_ID, ErrorCode, failed_reply, identify_process
from fedagent.proxy.reply_fetcher import ReplyFetcher
from tests.proxy.test_wall_clock import ThreadGrid
from tests.toy import Log, model


@pytest.fixture(autouse=True)
def _identity():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)


def reply_to(message_id):
    return failed_reply(message_id, ErrorCode.UNKNOWN, "stands for any reply")


def collected(pump, ids, count, within_s=60.0):
    """Return the ids answered, in order, until there are `count`."""
    found, deadline_s = [], time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline_s:
        awaited = [i for i in ids if i not in found]
        found += [r.metadata.reply_to_message_id for r in pump(awaited)]
        time.sleep(0.005)
    return found


@pytest.fixture
def pump_of():
    pumps = []

    def build(pull, **settings):
        pumps.append(ReplyFetcher(pull, interval_s=0.01, **settings))
        return pumps[-1]

    yield build
    for pump in pumps:
        pump.close()


def test_a_slow_upload_holds_up_nobody_else(pump_of):
    released = threading.Event()

    def pull(ids):
        [message_id] = ids
        if message_id == "slow":
            assert released.wait(60)
        return [reply_to(message_id)]

    pump = pump_of(pull)
    ids = ["slow", *"abcdef"]
    assert sorted(collected(pump, ids, 6)) == list("abcdef")
    released.set()
    assert collected(pump, ["slow"], 1) == ["slow"]


def test_what_is_not_there_yet_is_asked_for_again(pump_of):
    asked = []

    def pull(ids):
        asked.extend(ids)
        return [reply_to(ids[0])] if asked.count(ids[0]) > 3 else []

    assert sorted(collected(pump_of(pull), ["a", "b"], 2)) == ["a", "b"]
    assert asked.count("a") == asked.count("b") == 4


def test_each_reply_is_given_out_once_and_nobody_asks_for_what_is_not_awaited(pump_of):
    asked = []

    def pull(ids):
        asked.extend(ids)
        return [reply_to(ids[0])] if ids[0] == "a" else []

    pump = pump_of(pull)
    assert collected(pump, ["a", "b"], 1) == ["a"]
    assert pump([]) == []
    time.sleep(0.1)  # a question that was under way may end
    asked.clear()
    time.sleep(0.1)
    assert asked == []


def test_a_reply_that_cannot_be_read_is_an_error_in_its_place(pump_of):
    def pull(ids):
        if ids == ["broken"]:
            raise ValueError("object id mismatch")
        return [reply_to(ids[0])]

    pump = pump_of(pull, tries=2)
    replies = []
    deadline_s = time.monotonic() + 60
    while len(replies) < 2 and time.monotonic() < deadline_s:
        missing = {"broken", "fine"} - {r.metadata.reply_to_message_id for r in replies}
        replies += pump(missing)
        time.sleep(0.005)
    broken = next(r for r in replies if r.metadata.reply_to_message_id == "broken")
    assert broken.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    assert "object id mismatch" in broken.error.reason


def test_a_hiccup_costs_no_reply(pump_of):
    asked = []

    def pull(ids):
        asked.extend(ids)
        if len(asked) == 1:
            raise OSError("connection reset")
        return [reply_to(ids[0])]

    pump = pump_of(pull)
    [reply] = _until(pump, ["a"])
    assert reply.error.code == ErrorCode.UNKNOWN


def test_hiccups_of_a_long_job_cost_no_reply_either(pump_of):
    asked = []

    def pull(ids):
        asked.extend(ids)
        if len(asked) in (2, 4, 6, 8):
            raise OSError("connection reset")
        return [reply_to(ids[0])] if len(asked) > 8 else []

    pump = pump_of(pull, tries=2)
    [reply] = _until(pump, ["a"])
    assert reply.error.code == ErrorCode.UNKNOWN
    assert not pump._failures, "what was read is forgotten"


def _until(pump, ids):
    deadline_s = time.monotonic() + 60
    while not (replies := pump(ids)) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return replies


def test_a_run_that_was_stopped_ends_it(pump_of):
    class RunStopped(BaseException):
        pass

    def pull(ids):
        raise RunStopped

    pump = pump_of(pull)
    with pytest.raises(RunStopped):
        collected(pump, ["a"], 1)


def test_a_whole_run_through_it_survives_a_reply_that_nobody_can_read(monkeypatch):
    class Unreadable(ThreadGrid):
        """The third reply cannot be read, however often one tries."""

        def pull_messages(self, message_ids):
            [message_id] = message_ids
            if message_id == "m2":
                raise ValueError("truncated")
            return super().pull_messages(message_ids)

    monkeypatch.setattr("fedagent.proxy.dispatcher.pulls_over_network", lambda grid: True)
    log = Log()
    torch.manual_seed(1)
    strategy = FedAsync(concurrency=3, callbacks=[log], fraction_evaluate=0.0)
    strategy.start(Unreadable(3, 0.01), ArrayRecord(model().state_dict()), num_rounds=8)
    outcomes = [(str(s.outcome), s.reason) for s in log.settlements]
    assert outcomes.count(("failed", "reply-unavailable")) == 1
    assert outcomes.count(("applied", "")) == 8 * 3
    deadline_s = time.monotonic() + 60
    while _pumping() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not _pumping(), "the threads end with the run"


def _pumping():
    return [t for t in threading.enumerate() if t.name == "fedagent-pump" and t.is_alive()]
