"""A run on a real fleet that dies and is resumed: no update is lost, and none counts twice."""

import errno
import os
import signal
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, RecordDict

from benchmarks.reliability.local_grid import NODES, Counting, LocalGrid
from fedagent import AsyncStrategy, Coding, Collaborative, FedBuff, Robust
from fedagent.callbacks import Callback
from fedagent.client.mods import codec_mod
from fedagent.errors import CheckpointError, OutputError
from fedagent.journal import Checkpoints, checkpoints
from fedagent.mixing import ring
from fedagent.proxy.codecs import NodeCodecs
from fedagent.rules import FedAT
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.rules.staleness import constant
from fedagent.scheduling import Paced, Tiers, Uniform
from fedagent.stopping import MaxUpdates

JOBS = 200


class Killed(BaseException):
    """What ends a process without a word; the loop catches nothing of the kind."""


class Notes(Callback):
    """Keeps how dispatches ended, and dies when the model holds so many updates."""

    def __init__(self, kill_at=None):
        self.kill_at, self.ended, self.versions = kill_at, [], []

    def on_settled(self, statistics, settlement):
        self.ended.append((settlement.dispatch.token, str(settlement.outcome), settlement.reason))
        if statistics.num_updates == self.kill_at:
            raise Killed

    def on_version(self, statistics):
        self.versions.append(statistics.version)

    def applied(self):
        return {token for token, outcome, _ in self.ended if outcome == "applied"}


class Coded(Counting):
    """The same behind a codec; its nodes begin with the process, and remember nothing before."""

    def __init__(self, folder, size):
        super().__init__(folder, size)
        self.contexts = {}

    def __call__(self, message):
        node = message.metadata.dst_node_id
        context = self.contexts.setdefault(node, Context(1, node, {}, RecordDict(), {}))
        return codec_mod(message, context, lambda message, _: self.train(message))

    def train(self, message):
        return super().__call__(message)


def started(
    folder, notes, build=None, resume=False, nodes=NODES, every=10, app_of=Counting, **options
):
    app = app_of(folder, JOBS)
    saving = Checkpoints(folder / "checkpoints", "updates", every, resume=resume)
    settings = {"concurrency": 3, "fraction_evaluate": 0.0, "stopping": [MaxUpdates(60)]} | options
    build = build or (lambda **o: FedBuff(buffer_size=1, staleness=constant, **o))
    strategy = build(callbacks=[notes], checkpoint=saving, **settings)
    result = strategy.start(LocalGrid(app, nodes), app.initial(), num_rounds=1_000)
    return strategy.proxy, result.arrays.to_numpy_ndarrays()[0]


def killed(folder, at, **arguments):
    notes = Notes(at)
    with pytest.raises(Killed):
        started(folder, notes, **arguments)
    return notes


@pytest.mark.parametrize("at", [1, 9, 37])
def test_what_was_acknowledged_is_in_the_model_once(at, tmp_path):
    before = killed(tmp_path, at)
    after = Notes()
    proxy, counts = started(tmp_path, after, resume=True)
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60
    every = before.ended + after.ended
    assert len(before.applied() | after.applied()) == 60, every
    outcomes = proxy.statistics.by_outcome()
    assert outcomes["applied"] == 60
    assert outcomes.get("expired(interrupted)", 0) <= 3
    assert proxy.statistics.num_dispatches == sum(outcomes.values()), "the counts add up"
    assert at // 10 * 10 < after.versions[0] <= at, "from the newest checkpoint, through its log"


def test_it_may_die_again_and_again_also_before_it_has_gone_on(tmp_path):
    killed(tmp_path, 25)
    for at in (26, 27, 41):
        killed(tmp_path, at, resume=True)
    proxy, counts = started(tmp_path, Notes(), resume=True)
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


def test_a_damaged_checkpoint_costs_nothing_as_the_logs_since_the_one_before_are_kept(tmp_path):
    killed(tmp_path, 37)
    newest = max((tmp_path / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    notes = Notes()
    proxy, counts = started(tmp_path, notes, resume=True)
    assert min(notes.versions) < 30
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


@pytest.mark.parametrize("at", [9, 37])
@pytest.mark.parametrize("down", ["packed", "topk:1.0"])
def test_models_that_moved_by_differences_move_again_when_the_log_is_read(down, at, tmp_path):
    coding = {"codec": Coding("topk:1.0", down), "app_of": Coded}
    killed(tmp_path, at, **coding)
    killed(tmp_path, 45, resume=True, **coding)
    notes = Notes()
    proxy, counts = started(tmp_path, notes, resume=True, **coding)
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60
    assert not [reason for _, _, reason in notes.ended if reason == "mod-failed"]


class Uneven(Coded):
    """Every job moves all of the model, so that differences are not what they stand for."""

    def train(self, message):
        reply = super().train(message)
        (counts,) = reply.content["arrays"].to_numpy_ndarrays()
        noise = np.random.default_rng(reply.content["metrics"]["job"]).normal(size=len(counts))
        reply.content["arrays"] = ArrayRecord([(counts + noise).astype(np.float32)])
        return reply


class Based(FedBuffRule):
    """Keeps from which model each update started, over all processes."""

    bases: ClassVar = {}

    def receive(self, model, update):
        found = self.bases.setdefault(update.metrics["job"], [])
        found.append(update.base.clone().numpy().tobytes())
        return super().receive(model, update)


def bases_after_a_kill(folder):
    """Return, of updates that were applied and applied again from the log, where they started."""
    Based.bases.clear()
    settings = {
        "codec": Coding("packed", "int4"),
        "app_of": Uneven,
        "build": lambda **options: AsyncStrategy(Based(1), **options),
    }
    killed(folder, 37, **settings)
    started(folder, Notes(), resume=True, **settings)
    return [found for found in Based.bases.values() if len(found) > 1]


def test_an_update_that_the_log_applies_again_starts_where_it_did(tmp_path):
    again = bases_after_a_kill(tmp_path)
    assert len(again) >= 3
    assert all(first == second for first, second in again)


def test_a_log_that_moves_models_elsewhere_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(NodeCodecs, "again", lambda self, dispatch, base: base)
    assert any(first != second for first, second in bases_after_a_kill(tmp_path))


class Spoils(Notes):
    """Gives the scheduler what no checkpoint can hold, in the middle of the run."""

    def __init__(self, scheduler, kill_at):
        super().__init__(kill_at)
        self.scheduler = scheduler

    def on_settled(self, statistics, settlement):
        if statistics.num_updates == 15:
            self.scheduler.view = memoryview(b"x")
        super().on_settled(statistics, settlement)


def test_what_cannot_be_saved_costs_a_checkpoint_and_not_the_run(tmp_path, caplog):
    scheduler = Uniform()
    notes = Spoils(scheduler, kill_at=37)
    with pytest.raises(Killed):
        started(tmp_path, notes, scheduler=scheduler)
    assert sum("memoryview" in r.getMessage() for r in caplog.records) == 2  # at 20 and at 30
    proxy, counts = started(tmp_path, Notes(), resume=True, scheduler=Uniform())
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


class Waiting:
    """A disk that has no room for its third checkpoint until so many updates are acknowledged."""

    def __init__(self, monkeypatch, error=None):
        self.may_go_on, self.error = threading.Event(), error
        self.number, self.write = 0, checkpoints.write
        monkeypatch.setattr(checkpoints, "write", self)

    def __call__(self, parts, path):
        self.number += 1
        if self.number == 3:
            assert self.may_go_on.wait(60), "the loop stands still while a checkpoint is written"
            if self.error is not None:
                raise self.error
        self.write(parts, path)


class SetsFree(Notes):
    """Lets the disk go on in the middle of the way to the next checkpoint."""

    def __init__(self, disk, at, kill_at=None):
        super().__init__(kill_at)
        self.disk, self.at = disk, at

    def on_settled(self, statistics, settlement):
        if statistics.num_updates == self.at:
            self.disk.may_go_on.set()
        super().on_settled(statistics, settlement)


def test_updates_are_taken_in_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    disk = Waiting(monkeypatch)
    killed_at_27 = SetsFree(disk, at=25, kill_at=27)
    with pytest.raises(Killed):
        started(tmp_path, killed_at_27)
    after = Notes()
    proxy, counts = started(tmp_path, after, resume=True)
    assert after.versions[0] in (21, 22, 23), "it holds the moment at which it was taken"
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


def test_nothing_counts_before_the_disk_has_the_first_checkpoint(tmp_path, monkeypatch):
    acknowledged, write = threading.Event(), checkpoints.write

    class Tells(Notes):
        def on_settled(self, statistics, settlement):
            acknowledged.set()

    def watch(parts, path):
        if path.name.startswith(f".{1:012}"):
            assert not acknowledged.wait(0.3), "without it the log is worth nothing"
        write(parts, path)

    monkeypatch.setattr(checkpoints, "write", watch)
    started(tmp_path, Tells())
    assert acknowledged.is_set()


def test_a_disk_that_does_not_take_a_checkpoint_ends_the_run_and_costs_no_update(
    tmp_path, monkeypatch
):
    disk = Waiting(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    before = SetsFree(disk, at=25)
    with pytest.raises(OutputError, match=r"000003\.safetensors cannot be written: No space"):
        started(tmp_path, before)
    assert len(before.applied()) in range(25, 32), "at the next turn, or when the next is due"
    monkeypatch.undo()
    proxy, counts = started(tmp_path, Notes(), resume=True)
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


def test_a_run_is_resumed_by_one_process_at_a_time(tmp_path):
    killed(tmp_path, 17)
    reading, writing = os.pipe()

    def hold():
        class Holds(Notes):
            def on_start(self, statistics):
                os.write(writing, b".")
                signal.pause()

        started(tmp_path, Holds(), resume=True)

    if (child := os.fork()) == 0:
        try:
            hold()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"."
        with pytest.raises(CheckpointError, match="going on in another process"):
            started(tmp_path, Notes(), resume=True)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    proxy, counts = started(tmp_path, Notes(), resume=True)
    assert counts.sum() == proxy.statistics.num_updates == 60


def test_a_round_has_as_many_updates_as_when_nodes_joined_it(tmp_path):
    """The nodes that came after the checkpoint are part of what is gone through again."""
    joining = list(NODES[:2])
    app_nodes = joining

    class Join(Notes):
        def on_settled(self, statistics, settlement):
            if statistics.num_updates == 5:
                app_nodes.extend(NODES[2:])
            super().on_settled(statistics, settlement)

    class Growing(LocalGrid):
        def get_node_ids(self):
            return list(app_nodes)

    def build(**o):
        return FedBuff(buffer_size="cohort", staleness=constant, **o)

    def run(notes, resume=False):
        app = Counting(tmp_path, JOBS)
        saving = Checkpoints(tmp_path / "checkpoints", "updates", 1_000, resume=resume)
        strategy = build(
            callbacks=[notes],
            checkpoint=saving,
            stopping=[MaxUpdates(60)],
            fraction_evaluate=0.0,
            membership_interval_s=1e-9,
        )
        strategy.start(Growing(app), app.initial(), num_rounds=1_000)
        return strategy.proxy.statistics

    before = Join(40)
    with pytest.raises(Killed):
        run(before)
    assert before.versions[-1] < 18, "rounds of two at first, then of four"
    after = Notes()
    run(after, resume=True)
    assert after.versions[: len(before.versions)] == before.versions


def test_models_that_nodes_have_for_themselves_come_back_as_they_were(tmp_path):
    def build(**o):
        return Collaborative(mixing=ring(len(NODES)), buffer_size=1, **o)

    before = killed(tmp_path, 25, build=build, every=1_000)
    after = Notes()
    proxy, _ = started(tmp_path, after, build=build, resume=True, every=1_000)
    assert proxy.statistics.num_updates == 60
    assert before.applied() <= after.applied(), "all were gone through again"


def test_a_scheduler_begins_anew_with_the_number_at_work(tmp_path):
    killed(tmp_path, 37, scheduler=Paced())
    scheduler = Paced()
    proxy, _ = started(tmp_path, Notes(), scheduler=scheduler, resume=True)
    assert not scheduler._at_work, "every job has ended in one call"
    assert len(scheduler.costs.state_dict()) > 0
    assert proxy.statistics.in_flight == 0


@pytest.mark.parametrize("every", [10, 1_000])
def test_rounds_of_tiers_go_on_where_they_were(every, tmp_path):
    def build(**o):
        return AsyncStrategy(FedAT(), scheduler=Tiers(2, 2), **o)

    killed(tmp_path, 36, build=build, every=every, concurrency=4)
    resumed = {"build": build, "resume": True, "every": every, "concurrency": 4}
    proxy, _ = started(tmp_path, Notes(), **resumed)
    assert proxy.statistics.num_updates == 60
    rule, tiers = proxy._rule, proxy._options.scheduler._turns
    assert rule.lost == {"no-group": len(NODES)}, "no node was ranked twice"
    for tier in tiers:
        assert not tier.at_work
        assert len(rule._tiers[tier.number].buffer) == tier.num_received


def test_replies_that_threads_fetch_are_logged_as_any_others(tmp_path, monkeypatch):
    """On a SuperLink each reply is asked for by a thread, and grid and threads are no state."""
    monkeypatch.setattr("fedagent.proxy.dispatcher.pulls_over_network", lambda grid: True)
    killed(tmp_path, 17)
    proxy, counts = started(tmp_path, Notes(), resume=True)
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() == proxy.statistics.num_updates == 60


class HangingGrid(LocalGrid):
    """Its last node answers twice, and then so late that nobody waits for it, or never."""

    num_answers = 0
    hides: ClassVar[dict[str, float]] = {}

    def pull_messages(self, message_ids):
        hung = {i for i, m in self._pending.items() if m.metadata.dst_node_id == NODES[-1]}
        is_late = self.num_answers >= 2 and time.monotonic() < self._until_s(hung)
        replies = super().pull_messages([i for i in message_ids if not (is_late and i in hung)])
        self.num_answers += sum(r.metadata.src_node_id == NODES[-1] for r in replies)
        return replies

    def _until_s(self, hung):
        return max((self.hides.setdefault(i, time.monotonic() + 0.5) for i in hung), default=0.0)


@pytest.mark.parametrize("at", [20, 60])
def test_what_depends_on_who_is_overdue_happens_again(at, tmp_path, monkeypatch):
    """A cap waits for a node until it is overdue, and again when it is heard of."""
    monkeypatch.setattr("tests.journal.test_real_fleet.LocalGrid", HangingGrid)

    def build(**o):
        rule = FedBuffRule(1, weighted=False, staleness=constant)
        return AsyncStrategy(rule, robust=Robust(max_influence=0.3), deadline_s=0.2, **o)

    alike = {"build": build, "every": 1_000, "stopping": [MaxUpdates(80)], "concurrency": 4}
    before, after = killed(tmp_path, at, **alike), Notes()
    assert [e for e in before.ended if e[1] == "expired"], "nothing of the kind happened"
    proxy, counts = started(tmp_path, after, resume=True, **alike)
    judged, again = ([e for e in n.ended if e[1] != "expired"] for n in (before, after))
    assert again[: len(judged)] == judged
    assert counts.sum() == proxy.statistics.num_updates == 80
    assert not proxy.statistics.in_flight


class LateGrid(LocalGrid):
    """The first two answers of its last node come when nobody waits for them any more."""

    hidden: ClassVar[dict[str, float]] = {}

    def pull_messages(self, message_ids):
        time.sleep(0.02)  # the others are not done with all before it is heard
        asked = [i for i, m in self._pending.items() if m.metadata.dst_node_id == NODES[-1]]
        for message_id in asked:
            late_s = 0.5 if len(self.hidden) < 2 else 0.0
            self.hidden.setdefault(message_id, time.monotonic() + late_s)
        hung = {i for i in asked if time.monotonic() < self.hidden[i]}
        return super().pull_messages([i for i in message_ids if i not in hung])


class UntilHeard(Notes):
    """Dies when an update of the last node is applied."""

    def on_settled(self, statistics, settlement):
        super().on_settled(statistics, settlement)
        if settlement.dispatch.node_id == NODES[-1] and settlement.outcome == "applied":
            raise Killed


def test_jobs_that_missed_their_deadlines_miss_them_again(tmp_path, monkeypatch):
    """A tier's node whose first jobs came to nothing is ranked by another one."""
    monkeypatch.setattr("tests.journal.test_real_fleet.LocalGrid", LateGrid)
    LateGrid.hidden.clear()

    def build(**o):
        return AsyncStrategy(FedAT(), scheduler=Tiers(2, 2), deadline_s=0.2, **o)

    alike = {"build": build, "every": 100_000, "concurrency": 4}
    before, after = UntilHeard(), Notes()
    with pytest.raises(Killed):
        started(tmp_path, before, stopping=[MaxUpdates(JOBS - 20)], **alike)
    missed = [e for e in before.ended if e[2] == "deadline"]
    assert len(missed) >= 2
    until = MaxUpdates(len(before.applied()) + 8)
    proxy, _ = started(tmp_path, after, resume=True, stopping=[until], **alike)
    assert set(before.ended) <= set(after.ended), "each has the end that it had"
    assert len({token for token, *_ in after.ended}) == len(after.ended), "and no other"
    assert not proxy.statistics.in_flight


def test_seconds_in_which_nothing_ran_do_not_count(tmp_path):
    class Late(Notes):
        def on_settled(self, statistics, settlement):
            self.now_s = statistics.now_s
            super().on_settled(statistics, settlement)

    notes = Late(37)
    with pytest.raises(Killed):
        started(tmp_path, notes)
    after = Late()
    started(tmp_path, after, resume=True)
    assert notes.now_s <= after.now_s < notes.now_s + 60


def test_a_log_that_does_not_fit_says_so(tmp_path):
    killed(tmp_path, 37)
    files = sorted((tmp_path / "checkpoints").iterdir())
    max(p for p in files if p.suffix == ".safetensors").write_bytes(b"")
    min(p for p in files if p.suffix == ".log").unlink()
    with pytest.raises(
        CheckpointError, match=r"started from version \d+, .*delete the \.log files"
    ):
        started(tmp_path, Notes(), resume=True)
