"""Parcels: what arrives is what was sent, and arrays do not go through the pipe."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from fedagent.simulation import parcels
from fedagent.simulation.parcels import Post, shared_memory

LARGE = 100_000


def ends(memory):
    ours, theirs = multiprocessing.Pipe()
    return Post(ours, memory, side=0), Post(theirs, memory, side=1)


def content(*values: float) -> RecordDict:
    arrays = {f"w{i}": Array(np.full(LARGE, v, np.float32)) for i, v in enumerate(values)}
    return RecordDict({"arrays": ArrayRecord(arrays)})


def sent_in_the_pipe(post: Post, other: Post, thing: object) -> bytes:
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


def test_two_parcels_may_be_under_way_in_each_direction():
    ours, theirs = ends(shared_memory())
    for first in (1.0, 3.0, 5.0):
        ours.send(content(first))
        ours.send(content(first + 1))
        assert [theirs.receive(), theirs.receive()] == [content(first), content(first + 1)]


def test_large_arrays_stay_out_of_the_pipe():
    ours, theirs = ends(shared_memory())
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) < 2000


@pytest.mark.parametrize("lacking", ["memory", "room"])
def test_without_memory_or_room_in_it_arrays_go_through_the_pipe(lacking, monkeypatch):
    memory = shared_memory() if lacking == "room" else None
    monkeypatch.setattr(parcels, "_SLOT_BYTES", LARGE)
    ours, theirs = ends(memory)
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) > 4 * LARGE


def test_the_same_bytes_are_sent_once():
    ours, theirs = ends(None)
    version = content(1.0)
    assert len(sent_in_the_pipe(ours, theirs, version)) > 4 * LARGE
    assert len(sent_in_the_pipe(ours, theirs, version)) < 2000
    assert len(sent_in_the_pipe(ours, theirs, content(1.0))) > 4 * LARGE, "equal, not the same"


def test_what_cannot_be_pickled_does_not_disturb_the_next():
    ours, theirs = ends(shared_memory())
    ours.send(content(1.0))
    with pytest.raises((TypeError, pickle.PicklingError)):
        ours.send((content(2.0), threading.Lock()))
    ours.send(content(3.0))
    assert [theirs.receive(), theirs.receive()] == [content(1.0), content(3.0)]
