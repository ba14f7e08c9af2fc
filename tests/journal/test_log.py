"""Logs between checkpoints: records that are whole or not there, in order, across files."""

import logging
import os

import numpy as np
import pytest

from fedagent.errors import OutputError
from fedagent.journal import Checkpoints, Snapshot


def record(number: int) -> Snapshot:
    return Snapshot(number, {"0": np.full(1000, number, np.uint8)})


def logged(folder, *files) -> Checkpoints:
    kept = Checkpoints(folder)
    for numbers in files:
        log = kept.log(kept.next_number())
        for number in numbers:
            log.append(record(number), is_urgent=True)
        log.close()
    return kept


def numbers(kept: Checkpoints, since: int = 1) -> list[int]:
    found = list(kept.logged(since))
    assert all((snapshot.arrays["0"] == snapshot.tree).all() for snapshot in found)
    return [snapshot.tree for snapshot in found]


def test_records_come_back_in_order_across_files_and_from_where_they_are_wanted(tmp_path):
    kept = logged(tmp_path, [1, 2], [], [3], [4, 5])
    assert numbers(kept) == [1, 2, 3, 4, 5]
    assert numbers(kept, since=3) == [3, 4, 5]


@pytest.mark.parametrize("left", [1, 10, 20, 300])
def test_a_record_that_was_being_written_is_left_out_and_said(left, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    kept = logged(tmp_path, [1], [2])
    path = tmp_path / f"{2:012}.log"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:left])
    with caplog.at_level("WARNING", "flwr.fedagent"):
        assert numbers(kept) == [1, 2]
    assert f"its last {left} bytes are no whole record" in caplog.text
    assert path.read_bytes() == whole, "it is cut off, so that what others log comes after it"
    logged(tmp_path, [3])
    assert numbers(kept) == [1, 2, 3]


@pytest.mark.parametrize("at", [2, 10, 30, 60, 400])
def test_after_a_changed_bit_nothing_is_used_not_even_a_later_file(at, tmp_path):
    kept = logged(tmp_path, [1, 2, 3], [4])
    path = tmp_path / f"{1:012}.log"
    content = bytearray(path.read_bytes())
    content[len(content) // 3 + at] ^= 4
    path.write_bytes(content)
    assert numbers(kept) == [1]


def test_the_disk_has_an_urgent_record_and_all_before_it(tmp_path):
    kept = Checkpoints(tmp_path)
    log = kept.log(1)
    log.append(record(1), is_urgent=False)
    log.append(record(2), is_urgent=True)
    assert numbers(kept) == [1, 2]  # though the file is still open


def test_the_disk_has_all_of_a_log_that_is_closed(tmp_path, monkeypatch):
    """The next one tells of what came after it, and its records may be urgent."""
    synced = []
    log = Checkpoints(tmp_path).log(1)
    log.append(record(1), is_urgent=False)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    log.close()
    assert synced == [(tmp_path / f"{1:012}.log").stat().st_size]


def test_logs_go_with_the_checkpoints_that_need_them(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    for number in (1, 2, 3, 4):
        kept.log(number).close()
        kept.save(number, record(number), {})
    assert [int(p.stem) for p in sorted(tmp_path.glob("*.log"))] == [3, 4]


def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, monkeypatch):
    log = Checkpoints(tmp_path).log(1)
    log._file.close()
    log._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(OutputError, match=r"000001\.log cannot be written: No space left"):
        log.append(record(1), is_urgent=True)
