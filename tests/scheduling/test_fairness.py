"""The cap on a node's share of the work."""

import math
from collections import Counter

import pytest

from fedagent.errors import ConfigurationError
from fedagent.scheduling import FairnessCap, FedCompass, RoundRobin, Uniform, Utility
from fedagent.simulation import Scripted, TwoClass
from tests.scheduling.fleet import SteadyFleet, done, idle_of, trained

RATIO = 25.0


def jobs_of(scheduler, turns: int = 400) -> Counter:
    """Five fast and five slow nodes, all at work unless the scheduler says no."""
    fleet = SteadyFleet({node: 1.0 if node % 2 else RATIO for node in range(10)})
    given = Counter(job.node_id for job in fleet.hand_out(scheduler))
    for _ in range(turns):
        given.update(job.node_id for job in fleet.turn(scheduler))
    return given


@pytest.mark.parametrize("max_ratio", [1.0, 1.2, 1.5, 1.9])
def test_no_node_gets_more_than_its_multiple_of_the_mean(max_ratio):
    given = jobs_of(FairnessCap(Uniform(1), max_ratio))
    mean = given.total() / 10
    assert max(given.values()) <= max_ratio * mean + 1
    assert max(given.values()) >= max_ratio * mean - 1, "and it is used up"


def test_without_the_cap_fast_nodes_get_far_more():
    given = jobs_of(FairnessCap(Uniform(1), math.inf))
    assert max(given.values()) > 1.8 * given.total() / 10
    assert given == jobs_of(Uniform(1))


def test_a_capped_node_leaves_its_place_to_another():
    scheduler, idle = FairnessCap(RoundRobin(1), 1.0), idle_of(1, 2, 3)
    turns = []
    for _ in range(6):
        node = scheduler.assign(idle, 0.0).node_id
        scheduler.observe(done(node, 1, 1.0))
        turns.append(node)  # node 1 stays the oldest: only the cap moves the choice on
    assert sorted(turns[:3]) == sorted(turns[3:]) == [1, 2, 3]


def test_lost_jobs_do_not_keep_the_others_waiting():
    """Nodes that were given work and never came back are not part of the mean."""
    scheduler, idle = FairnessCap(Uniform(1), 1.0), idle_of(1, 2, 3, 4)
    for _ in range(4):
        node = scheduler.assign(idle, 0.0).node_id
        idle.discard(node)
        (scheduler.observe(done(node, 1, 1.0)) if node == 1 else scheduler.lost(node))
    idle.add(1)
    for _ in range(20):
        assert scheduler.assign(idle, 1.0).node_id == 1
        scheduler.observe(done(1, 1, 1.0))


@pytest.mark.parametrize("inner", [FedCompass(2, 10), Utility(local_steps=2), Uniform(2)])
def test_any_scheduler_can_be_capped_on_a_fleet(inner):
    fleet = TwoClass(num_nodes=6, ratio=RATIO)
    log = trained(FairnessCap(inner, 1.5), fleet, 600.0, buffer_size=3)
    given = Counter(node for node, _ in log.starts)
    assert max(given.values()) <= 1.5 * given.total() / 6 + 1
    assert log.statistics.num_updates > 20


@pytest.mark.parametrize("prefetch", [1, 3])
def test_what_queues_at_a_node_is_capped_too(prefetch):
    """All nodes are at work, so what a fast one gets is what is queued for it."""
    fleet = Scripted(num_nodes=4, times=[1.0, 1.0, 10.0, 10.0])
    log = trained(FairnessCap(Uniform(1), 1.2), fleet, 300.0, prefetch=prefetch)
    given = Counter(node for node, _ in log.starts)
    assert max(given.values()) <= 1.2 * given.total() / 4 + 1 + prefetch
    assert log.statistics.num_updates > 100


def test_the_inner_scheduler_decides_how_much():
    scheduler = FairnessCap(Uniform(7, 0.3))
    for of in (scheduler, scheduler.assign(idle_of(1), 0.0), scheduler.plan(1, 0.0)):
        assert (of.local_steps, of.learning_rate) == (7, 0.3)


def test_the_inner_scheduler_hears_of_every_job_s_end():
    class Hearing(Uniform):
        heard = ()

        def observe(self, observation):
            self.heard += (("done", observation.node_id),)

        def lost(self, node_id):
            self.heard += (("lost", node_id),)

    scheduler, idle = FairnessCap(Hearing()), idle_of(1)
    for end in (lambda: scheduler.observe(done(1, 1, 1.0)), lambda: scheduler.lost(1)):
        scheduler.assign(idle, 0.0)
        end()
    assert scheduler.inner.heard == (("done", 1), ("lost", 1))


def test_a_cap_that_chooses_by_chance_itself_goes_on_from_its_state():
    class Own(FairnessCap):
        def choose(self, idle):
            return idle.random(self.generator)

    whole, resumed = (Own(Uniform(1, seed=4), math.inf) for _ in range(2))
    idle = idle_of(*range(100))
    for _ in range(3):
        whole.choose(idle)
    resumed.load_state_dict(whole.state_dict())
    assert [resumed.choose(idle) for _ in range(9)] == [whole.choose(idle) for _ in range(9)]


def test_it_asks_again_when_the_inner_scheduler_wants_to():
    scheduler = FairnessCap(FedCompass())
    for node in (1, 2):
        scheduler.observe(done(node, 10, 10.0))
        scheduler.assign(idle_of(node), 0.0)
    scheduler.observe(done(1, 100, 100.0))
    assert scheduler.next_due_s() == 150.0


def test_a_ratio_below_one_is_refused():
    with pytest.raises(ConfigurationError, match=r"max_ratio=0\.5"):
        FairnessCap(Uniform(), 0.5)


def check_a_queued_job_is_a_job_and_no_node_more() -> None:
    """Jobs that wait at a node count as its own, and the node is at work until all are done."""
    scheduler, idle = FairnessCap(RoundRobin(1), 1.0), idle_of(1)

    def does_one(node):
        job = scheduler.assign(idle, 0.0)
        if job is not None:
            assert job.node_id == node
            scheduler.observe(done(node, 1, 1.0))
        return job is not None

    assert scheduler.assign(idle, 0.0).node_id == 1
    scheduler.plan(1, 0.0)
    scheduler.plan(1, 0.0)  # three jobs at node 1, two of them queued
    idle.discard(1)
    idle.add(2)
    given = [does_one(2) for _ in range(5)]
    assert given == [True] * 4 + [False], "the mean is that of two nodes, three jobs node 1's own"
    scheduler.observe(done(1, 1, 1.0))
    assert not does_one(2), "node 1 is still at work"
    scheduler.observe(done(1, 1, 1.0))
    assert not does_one(2), "with its last job"
    scheduler.lost(1)
    idle.add(1)
    assert [does_one(1), does_one(2)] == [True, True]


def takes_a_queued_job_for_none(patch):
    patch.setattr(FairnessCap, "plan", lambda self, node_id, now_s: self.inner.plan(node_id, now_s))


def takes_a_node_for_free_at_its_first_answer(patch):
    patch.setattr(FairnessCap, "_discount", lambda self, node_id: self._at_work.pop(node_id, None))


def takes_one_answer_for_two(patch):
    right = FairnessCap._discount

    def discount(self, node_id):
        self._at_work[node_id] -= 1
        right(self, node_id)

    patch.setattr(FairnessCap, "_discount", discount)


def takes_a_queued_job_for_a_node(patch):
    class Jobs(Counter):
        def __len__(self):
            return self.total()

    right = FairnessCap.__init__

    def init(self, *settings):
        right(self, *settings)
        self._at_work = Jobs()

    patch.setattr(FairnessCap, "__init__", init)


def leaves_a_node_at_work_for_ever(patch):
    patch.setattr(FairnessCap, "_discount", lambda self, node_id: None)


def test_a_queued_job_is_a_job_and_no_node_more():
    check_a_queued_job_is_a_job_and_no_node_more()


@pytest.mark.parametrize(
    "plant",
    [
        takes_a_queued_job_for_none,
        takes_a_node_for_free_at_its_first_answer,
        takes_one_answer_for_two,
        takes_a_queued_job_for_a_node,
        leaves_a_node_at_work_for_ever,
    ],
)
def test_a_mistake_about_queued_jobs_is_noticed(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_a_queued_job_is_a_job_and_no_node_more()
