"""What is reached from an object is saved and comes back, whatever it is made of."""

import functools
import json
import math
import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedagent._flower import identify_process
from fedagent.errors import CheckpointError
from fedagent.journal import Snapshot, capture, restore
from fedagent.update import Kind


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True)
class Settings:
    UNSAVED: ClassVar = ("told",)

    size: int
    told: object = None


@dataclass(slots=True)
class Slotted:
    number: int
    later: int = field(init=False)


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def double(self, by=2):
        return by * self.size


class Engine:
    IS_LIVE = True


def through_json(snapshot: Snapshot) -> Snapshot:
    tree = json.loads(json.dumps(snapshot.tree))
    live = json.loads(json.dumps(snapshot.live))
    return Snapshot(tree, snapshot.arrays, [[p and [tuple(s) for s in p] for p in w] for w in live])


def resumed(saved: Thing, fresh: Thing | None = None) -> Thing:
    fresh = fresh or Thing()
    restore(through_json(capture(saved)), fresh)
    return fresh


VALUES = [
    None,
    True,
    2**70,
    -0.0,
    0.1 + 0.2,
    math.inf,
    "text",
    b"\x00bytes",
    (1, (2, 3)),
    Point(1.0, 2.0),
    [1, [2.5, None]],
    {1: "one", (2, 3): "tuple", "x": {}},
    {3, 1, 2},
    frozenset({"a"}),
    deque([1, 2], maxlen=3),
    Counter({("applied", ""): 3}),
    OrderedDict([("b", 1), ("a", 2)]),
    MappingProxyType({"a": 1}),
    range(3, 9, 2),
    Kind.TRAIN,
    Path("a/b"),
    np.float32(1.1),
    np.dtype("<f4"),
    torch.float64,
    torch.device("cpu"),
    Settings(3),
    math.hypot,
    Thing,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal_and_of_the_same_type(value):
    back = resumed(Thing(value=value)).value
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)  # the order of entries, the sign of zero


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_tensor_comes_back_bit_by_bit(dtype):
    value = (torch.randn(2, 3) * 5).to(dtype).t()
    back = resumed(Thing(value=value)).value
    assert back.dtype is dtype
    assert torch.equal(back, value)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.bool_])
def test_a_tensor_without_numbers_comes_back(dtype, shape):
    value = torch.from_numpy(np.broadcast_to(np.zeros((), dtype), shape).copy("K"))
    back = resumed(Thing(value=value)).value
    assert (back.dtype, back.shape) == (value.dtype, value.shape)


@pytest.mark.parametrize(
    "value", [np.array(1.5), np.zeros((0, 2)), np.arange(6.0)[::2], np.array([1j])]
)
def test_an_array_comes_back_bit_by_bit(value):
    back = resumed(Thing(value=value)).value
    np.testing.assert_array_equal(back, value)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    back[...] = 0  # and is one's own to change
    assert not back.any()


def test_what_changes_later_does_not_change_what_was_captured():
    """It is written beside a loop that goes on."""
    inner = Thing(names=["a"])
    saved = Thing(
        tensor=torch.ones(3), turned=torch.ones(2, 3).T, array=np.ones(3), inner=inner, layer=None
    )
    saved.layer = torch.nn.Linear(1, 1)
    with torch.no_grad():
        saved.layer.weight.fill_(1)
        snapshot = capture(saved)
        saved.layer.weight.fill_(2)
    saved.tensor.fill_(2)
    saved.turned.fill_(2)
    saved.array.fill(2)
    inner.names.append("b")
    fresh = Thing(layer=torch.nn.Linear(1, 1))
    restore(through_json(snapshot), fresh)
    assert fresh.tensor.tolist() == fresh.array.tolist() == [1, 1, 1]
    assert fresh.turned.tolist() == [[1, 1]] * 3
    assert fresh.layer.weight.item() == 1
    assert fresh.inner.names == ["a"]


def test_generators_go_on_where_they_were():
    saved = Thing(
        a=random.Random(1), b=np.random.default_rng(2), c=torch.Generator().manual_seed(3)
    )
    for _ in range(700):
        saved.a.gauss(0, 1), saved.b.normal()
    back = resumed(saved)
    assert back.a.gauss(0, 1) == saved.a.gauss(0, 1)
    assert back.b.normal() == saved.b.normal()
    assert torch.rand(1, generator=back.c) == torch.rand(1, generator=saved.c)


def test_what_is_one_object_stays_one_object():
    shared, tensor = Thing(size=1), torch.ones(2)
    shared.itself = shared
    back = resumed(Thing(first=shared, second=[shared], x=tensor, y={"y": tensor}))
    assert back.second[0] is back.first is back.first.itself
    assert back.y["y"] is back.x


def test_an_object_that_is_there_is_filled_and_its_holder_sees_it():
    fresh = Thing(part=Thing(size=1, extra=2))
    holder = fresh.part
    resumed(Thing(part=Thing(size=5)), fresh)
    assert fresh.part is holder
    assert vars(holder) == {"size": 5}


def test_two_objects_never_become_one():
    one = Thing(size=0)
    back = resumed(Thing(a=Thing(size=1), b=Thing(size=2)), Thing(a=one, b=one))
    assert (back.a.size, back.b.size) == (1, 2)


def test_frozen_objects_are_replaced_never_changed_and_keep_what_is_unsaved():
    constant = Settings(1, told=print)
    back = resumed(Thing(now=Settings(2)), Thing(now=constant))
    assert (back.now.size, back.now.told) == (2, print)
    assert constant.size == 1


def test_what_is_no_state_is_that_of_the_new_process():
    old, new = Engine(), Engine()
    queue = [functools.partial(Thing(size=4, engine=old).double, by=3)]
    saved = Thing(engine=old, lock=threading.Lock(), shout=lambda: "old", queue=queue)
    fresh = Thing(engine=new, lock=threading.Lock(), shout=lambda: "new", queue=[])
    lock = fresh.lock
    back = resumed(saved, fresh)
    assert (back.engine, back.lock, back.shout()) == (new, lock, "new")
    assert back.queue[0]() == 12
    assert back.queue[0].func.__self__.engine is new


def test_slots_that_are_not_set_and_values_that_are_cached_are_left_out():
    back = resumed(Thing(value=Slotted(3), counts=defaultdict(list, {1: [2]})))
    assert back.value.number == 3
    assert not hasattr(back.value, "later")
    assert back.counts[7] == []


def test_modules_and_optimisers_are_asked_for_their_state():
    def built():
        layer = torch.nn.Linear(2, 1)
        return Thing(layer=layer, optimiser=torch.optim.Adam(layer.parameters(), lr=0.1))

    def step(thing):
        thing.optimiser.zero_grad()
        thing.layer(torch.ones(1, 2)).sum().backward()
        thing.optimiser.step()

    saved, fresh = built(), built()
    step(saved)
    resumed(saved, fresh)
    step(saved), step(fresh)
    assert torch.equal(saved.layer.weight, fresh.layer.weight)


def test_a_message_of_flowers_comes_back_and_shares_its_bytes():
    identify_process(1, 1, 1)
    arrays = ArrayRecord([np.arange(4.0)])
    content = {"arrays": arrays, "config": ConfigRecord({"lr": 0.1, "names": ["a"], "raw": b"x"})}
    message = Message(RecordDict(content), dst_node_id=2**63 + 1, message_type="train")
    back = resumed(Thing(message=message, payload=arrays))
    assert back.message.metadata == message.metadata
    assert back.message.content["config"] == content["config"]
    assert back.message.content["arrays"] == arrays
    assert back.payload is back.message.content["arrays"]


def test_an_array_of_flowers_comes_back_without_the_pieces_in_which_it_was_sent():
    record = ArrayRecord([np.arange(6.0).reshape(2, 3)])
    record["0"].deflate()  # what a grid does before it sends
    again = resumed(Thing(record=record)).record["0"]
    assert vars(again).keys() < vars(record["0"]).keys()
    assert again.object_id == record["0"].object_id
    np.testing.assert_array_equal(again.numpy(), np.arange(6.0).reshape(2, 3))


def test_what_cannot_be_saved_is_named_with_its_place():
    with pytest.raises(CheckpointError, match=r"cannot hold \.parts\[1\]\.it, a .*generator"):
        capture(Thing(parts=[1, Thing(it=iter(x for x in ()))]))


def test_what_the_new_process_does_not_have_is_named():
    with pytest.raises(CheckpointError, match=r"needs what this run does not have: \.part\.engine"):
        resumed(Thing(part=Thing(engine=Engine())), Thing(part=Thing()))


def test_nothing_is_imported_or_called_because_a_checkpoint_says_so():
    snapshot = capture(Thing(value=Thing()))
    snapshot.tree["attributes"]["value"]["class"] = "antigravity:Anything"
    with pytest.raises(CheckpointError, match="antigravity:Anything, which this process does not"):
        restore(snapshot, Thing())


def test_a_function_that_comes_up_during_the_run_is_named_when_it_is_saved():
    thing = Thing(shout=lambda: 1, parts=[])
    known = capture(thing).ways()
    thing.parts.append(thing.shout)  # the same one, reached on a second way
    capture(thing).require_ways(known)
    thing.parts.append(lambda: 2)
    with pytest.raises(CheckpointError, match=r"cannot hold \.parts\[1\]: it is no state"):
        capture(thing).require_ways(known)
