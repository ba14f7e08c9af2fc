"""Files of checkpoints: whole or not there, and known to be what was written."""

import logging
import os

import numpy as np
import pytest

from fedagent.errors import CheckpointError, ConfigurationError, OutputError
from fedagent.journal import Checkpoints, Snapshot, checkpoints


def snapshot(number: int) -> Snapshot:
    return Snapshot(number, {"0": np.full(1000, number, np.uint8)}, [[(("attribute", "x"),)]])


def saved(folder, *numbers, keep=9) -> Checkpoints:
    kept = Checkpoints(folder, keep=keep)
    for number in numbers:
        kept.save(kept.next_number(), snapshot(number), {"update": number})
    return kept


def newest(kept: Checkpoints) -> int:
    _, state, about = kept.newest()
    assert (state.arrays["0"] == state.tree).all()
    assert about["update"] == state.tree
    assert state.live == [[(("attribute", "x"),)]]
    return state.tree


def test_the_newest_is_taken_and_the_oldest_go(tmp_path):
    kept = saved(tmp_path, *range(12), keep=2)
    assert newest(kept) == 11
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_one_is_never_taken(tmp_path, damage, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    kept = saved(tmp_path, 1, 2)
    path = max(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    size = len(content)
    path.write_bytes({"flip": content, "truncate": content[: size // 2], "empty": b""}[damage])
    with caplog.at_level("WARNING", "flwr.fedagent"):
        assert newest(kept) == 1
    assert f"{path} is damaged" in caplog.text


@pytest.mark.parametrize("at", ["write", "flush", "replace"])
def test_who_dies_while_writing_leaves_what_there_was(tmp_path, at, monkeypatch):
    kept = saved(tmp_path, 1)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path) if at == "replace" else checkpoints, at, die)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path, 2)
    assert newest(kept) == 1
    saved(tmp_path, 3)
    assert newest(kept) == 3


def test_the_disk_has_it_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda path, to: os.replace(path, to))  # noqa: PLW0108
    saved(tmp_path, 1)
    assert done == ["fsync", "replace", "fsync"]


def test_without_any_the_way_out_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint that is whole.*checkpoint=versions"):
        Checkpoints(tmp_path / "none").newest()


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        saved(tmp_path / "file", 1)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"keep": 0}, {"unit": "hours"}])
def test_settings_that_cannot_work_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Checkpoints(tmp_path, **wrong)
