"""Items arrive in order, and whoever hands them over never waits."""

import logging
import threading

import pytest

from fedagent.callbacks import background
from fedagent.callbacks.background import Background


@pytest.fixture
def warnings():
    """The messages of fedagent's logger; Flower's own does not propagate to where pytest looks."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("flwr.fedagent")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_everything_arrives_in_order_in_batches():
    batches = []
    sender = Background("service", batches.append)

    for number in range(2500):
        sender.put(number)
    sender.close()

    assert [number for batch in batches for number in batch] == list(range(2500))
    assert max(map(len, batches)) <= 1000


def test_what_a_broken_service_refuses_is_counted_and_the_rest_arrives(warnings):
    arrived, refused = [], threading.Event()

    def send(batch):
        if "bad" in batch:
            refused.set()
            raise ConnectionError("no route")
        arrived.extend(batch)

    sender = Background("service", send)
    sender.put("bad")
    assert refused.wait(20)
    sender.put("good")
    sender.close()

    assert arrived == ["good"]
    assert warnings == [
        "service does not take values (ConnectionError('no route')); the run goes on without.",
        "service: 1 values were lost.",
    ]


def test_slow_service_costs_values_not_time_or_memory(monkeypatch, warnings):
    monkeypatch.setattr(background, "MAX_WAITING", 10)
    released = threading.Event()
    sender = Background("service", lambda batch: released.wait(60))

    for number in range(100):
        sender.put(number)
    assert sender._waiting.qsize() <= 10
    sender.close(patience_s=0.1)
    released.set()

    assert "too slow" in warnings[0]
    assert "values were lost" in warnings[-1]
