"""What mods keep: in the Context, or in a node's folder beside it."""

import os
import time

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedagent import keys
from fedagent.client.mods.memory import _path, keep, kept, recall
from fedagent.wire.records import from_record, to_record

ARRAYS = {
    "a/b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(7),
    "": np.array([1 + 2j]),
    "file": np.zeros((0, 3), np.float16),
}


@pytest.fixture(params=["context", "folder"], autouse=True)
def place(request, tmp_path, monkeypatch):
    monkeypatch.delenv(keys.NODE_FOLDER, raising=False)
    if request.param == "folder":
        monkeypatch.setenv(keys.NODE_FOLDER, str(tmp_path))
    return request.param


def context(run_id=1, node_id=5):
    return Context(run_id, node_id, {}, RecordDict(), {})


def are_equal(found, arrays):
    return found.keys() == arrays.keys() and all(
        found[k].dtype == v.dtype and found[k].shape == v.shape and np.array_equal(found[k], v)
        for k, v in arrays.items()
    )


def test_what_is_kept_is_found_again_with_the_context_of_the_next_job():
    state = context()
    assert kept(state, "x") is None
    keep(state, "x", to_record(ARRAYS))
    again = Context(1, 5, {}, RecordDict(dict(state.state)), {})
    assert are_equal(kept(again, "x"), ARRAYS)
    keep(again, "x", to_record({"a": np.ones(2)}))
    assert are_equal(kept(again, "x"), {"a": np.ones(2)})


def test_recalling_forgets_the_rest_under_the_prefix(place, tmp_path):
    state = context()
    for name in ("old-1", "old-2", "other-1"):
        keep(state, name, to_record({name: np.ones(1)}))
    assert [list(found) for found in recall(state, "old-", ["2", "3"])] == [["old-2"]]
    assert sorted(state.state) == ["old-2", "other-1"]
    assert kept(state, "old-1") is None
    assert len(list(tmp_path.iterdir())) == (2 if place == "folder" else 0)


def test_nodes_and_runs_have_their_own():
    first, other_node, other_run = context(), context(node_id=6), context(run_id=2)
    for value, state in enumerate((first, other_node, other_run)):
        keep(state, "x", to_record({"a": np.full(1, value)}))
    assert [kept(s, "x")["a"][0] for s in (first, other_node, other_run)] == [0, 1, 2]


def test_the_context_is_light_where_there_is_a_folder(place):
    state = context()
    keep(state, "x", to_record({"a": np.zeros(10**5)}))
    size = sum(a.nbytes for a in from_record(state.state.array_records["x"]).values())
    assert size == (0 if place == "folder" else 8 * 10**5)


def test_a_name_is_no_path(tmp_path):
    state = context()
    keep(state, "../../outside", to_record({"a": np.ones(1)}))
    assert kept(state, "../../outside")["a"][0] == 1
    assert all(file.parent == tmp_path for file in tmp_path.rglob("*"))
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_ended_runs_left_goes_after_a_week(tmp_path):
    first, second = context(run_id=1), context(run_id=2)
    for state in (first, second):
        keep(state, "x", to_record({"a": np.ones(1)}))
    long_ago = time.time() - 8 * 86_400
    os.utime(_path(tmp_path, first, "x"), (long_ago, long_ago))
    keep(second, "y", to_record({"a": np.ones(1)}))
    assert kept(first, "x") is None
    assert kept(second, "x") is not None


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_another_process_has_removed_is_not_held(tmp_path):
    state = context()
    keep(state, "x", to_record({"a": np.ones(1)}))
    next(tmp_path.iterdir()).unlink()
    assert kept(state, "x") is None
    assert recall(state, "x", [""]) == []


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_another_process_removes_at_this_moment_is_no_error(tmp_path):
    (tmp_path / "gone.npy").symlink_to(tmp_path / "nowhere")  # listed, and not there
    state = context()
    keep(state, "x", to_record({"a": np.ones(1)}))
    assert kept(state, "x") is not None
