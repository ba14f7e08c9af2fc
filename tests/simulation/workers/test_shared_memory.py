"""Parcels: what arrives is what was sent, and arrays do not go through the pipe."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent.errors import FedagentError
from fedagent.simulation.workers import shared_memory as channels
from fedagent.simulation.workers.shared_memory import SharedMemoryChannel, shared_memory

LARGE = 100_000


def ends(memory):
    ours, theirs = multiprocessing.Pipe()
    return SharedMemoryChannel(ours, memory, side=0), SharedMemoryChannel(theirs, memory, side=1)


def content(*values: float) -> RecordDict:
    arrays = {f"w{i}": Array(np.full(LARGE, v, np.float32)) for i, v in enumerate(values)}
    return RecordDict({"arrays": ArrayRecord(arrays)})


def sent_in_the_pipe(post: SharedMemoryChannel, other: SharedMemoryChannel, thing: object) -> bytes:
    """What `post` writes into the pipe, which is then delivered to `other`."""
    ours, theirs = multiprocessing.Pipe()
    pipe, post.connection = post.connection, ours
    sending = threading.Thread(target=post.send, args=(thing,))
    sending.start()
    raw = theirs.recv_bytes()
    sending.join()
    post.connection = pipe
    threading.Thread(target=pipe.send_bytes, args=(raw,)).start()
    assert other.receive() == thing
    return raw


def test_both_directions_arrive_unchanged():
    ours, theirs = ends(shared_memory())
    ours.send((content(1.0, 2.0), "question"))
    theirs.send((content(3.0), "answer"))
    assert theirs.receive() == (content(1.0, 2.0), "question")
    assert ours.receive() == (content(3.0), "answer")


def test_as_many_transfers_may_be_under_way_in_each_direction_as_the_capacity_says():
    ours, theirs = ends(shared_memory())
    numbers = [float(n) for n in range(ours.capacity)]
    assert ours.capacity > 1
    for _ in range(3):
        for number in numbers:
            ours.send(content(number))
            theirs.send(content(-number))
        assert [theirs.receive() for _ in numbers] == [content(n) for n in numbers]
        assert [ours.receive() for _ in numbers] == [content(-n) for n in numbers]


def test_large_arrays_stay_out_of_the_pipe():
    ours, theirs = ends(shared_memory())
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) < 2000


def test_nothing_that_grows_with_the_content_goes_through_the_pipe():
    ours, theirs = ends(shared_memory())
    many = RecordDict({"arrays": ArrayRecord({f"w{i}": Array(np.ones(1)) for i in range(500)})})
    assert len(sent_in_the_pipe(ours, theirs, (many, "x" * LARGE))) < 200


def test_without_memory_arrays_go_through_the_pipe_one_transfer_at_a_time():
    ours, theirs = ends(None)
    assert ours.capacity == 1
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) > 4 * LARGE


def test_what_is_larger_than_the_memory_is_refused_and_does_not_disturb_the_next(monkeypatch):
    monkeypatch.setattr(channels, "_SLOT_BYTES", LARGE)
    ours, theirs = ends(shared_memory())
    with pytest.raises(FedagentError, match="workers=0"):
        ours.send(content(1.0))
    ours.send("small")
    assert theirs.receive() == "small"


def test_arrays_that_repeat_within_a_transfer_and_since_the_one_before_arrive_as_sent():
    ours, theirs = ends(None)
    one, other = content(1.0, 2.0), content(3.0)
    assert len(sent_in_the_pipe(ours, theirs, [one, other, one])) < 4 * 4 * LARGE
    assert len(sent_in_the_pipe(ours, theirs, [content(4.0), other, one, other])) < 2 * 4 * LARGE


def test_the_same_bytes_are_sent_once():
    ours, theirs = ends(None)
    version = content(1.0)
    assert len(sent_in_the_pipe(ours, theirs, version)) > 4 * LARGE
    assert len(sent_in_the_pipe(ours, theirs, version)) < 2000
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) > 4 * LARGE, "equal, not the same"


def test_data_that_is_a_part_of_other_bytes_arrives_as_that_part():
    ours, theirs = ends(shared_memory())
    record = ArrayRecord({"w": Array("uint8", (3,), "raw", b"")})
    record["w"].data = memoryview(b"0123456789")[2:5]
    ours.send(RecordDict({"arrays": record}))
    assert theirs.receive()["arrays"]["w"].data == b"234"


class OwnRecord(ConfigRecord):
    """A record of a kind of the user's own."""


def test_records_of_every_kind_arrive_as_what_they_were():
    ours, theirs = ends(shared_memory())
    records = {
        "arrays": content(1.0)["arrays"],
        "config": ConfigRecord({"on": True, "names": ["a"]}),
        "metrics": MetricRecord({"x": [1.0, 2.0]}),
        "own": OwnRecord({"y": 1}),
    }
    ours.send(RecordDict(records))
    arrived = theirs.receive()
    assert arrived == RecordDict(records)
    assert [type(record) for record in arrived.values()] == list(map(type, records.values()))


def test_what_cannot_be_pickled_does_not_disturb_the_next():
    ours, theirs = ends(shared_memory())
    ours.send(content(1.0))
    with pytest.raises((TypeError, pickle.PicklingError)):
        ours.send((content(2.0), threading.Lock()))
    ours.send(content(3.0))
    assert [theirs.receive(), theirs.receive()] == [content(1.0), content(3.0)]
