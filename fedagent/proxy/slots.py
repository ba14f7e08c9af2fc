"""Who may get a job now: free slots, queues at the nodes, and a breaker for storms of failures."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

from fedagent.nodes.backoff import Breaker
from fedagent.nodes.membership import Membership
from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Ledger
from fedagent.proxy.options import AsyncOptions
from fedagent.rules import Rule
from fedagent.scheduling import Assignment, AutoConcurrency, Eligible, IdleNodes, Observation
from fedagent.scheduling.concurrency import ConcurrencyFinder
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Kind, Rejection

logger = logging.getLogger("flwr.fedagent")

Attributes = Callable[[int], Mapping[str, float]]


class Slots:
    """The jobs that may be handed out, to as many nodes at a time as the options say.

    Sets `num_nodes`, `cohort` and `concurrency` of the statistics.

    Parameters
    ----------
    jobs : who is at work.
    ledger : since when.
    breaker : how many may be, after failures.
    attributes : node id -> what is known of the node; see `fedagent.nodes.geography`.
    rule : may bar nodes from work.

    Attributes
    ----------
    num_heard : how many nodes could be expected to bring something when replies were last pulled;
        counted where there is a cap on influence. What was logged is judged by it once more.
    """

    def __init__(
        self,
        options: AsyncOptions,
        membership: Membership,
        jobs: Jobs,
        ledger: Ledger,
        breaker: Breaker,
        statistics: Statistics,
        attributes: Attributes,
        rule: Rule,
    ) -> None:
        self._options, self._membership, self._statistics = options, membership, statistics
        self._jobs, self._ledger = jobs, ledger
        self._breaker, self._attributes, self._rule = breaker, attributes, rule
        wanted = options.concurrency
        self._finder = ConcurrencyFinder(wanted) if isinstance(wanted, AutoConcurrency) else None
        self._has_warned = False
        self.num_heard = 0

    def adjust(self) -> None:
        """Count anew which nodes are connected, and how many of them may be at work."""
        statistics, options = self._statistics, self._options
        statistics.num_nodes = len(self._membership)
        statistics.cohort = options.cohort_of(statistics.num_nodes)
        if self._finder is None:
            statistics.train_at_once(options.num_training(statistics.num_nodes))
        else:
            width = self._finder.limit(
                statistics.cohort, statistics.num_nodes, statistics.updates_per_version
            )
            statistics.train_at_once(width)

    def observe(self, observation: Observation) -> None:
        """Learn from an update how many nodes may be at work."""
        finder = self._finder
        if finder is None:
            return
        finder.observe(observation.duration_s)
        if finder.is_due(self._jobs.num_nodes):
            finder.look(self._under_way_s())
        self.adjust()

    def _under_way_s(self) -> list[float]:
        """How long nodes have been at their jobs: each does one after the other."""
        first: dict[int, Dispatch] = {}
        for dispatch in self._ledger.in_flight():
            if dispatch.kind is Kind.TRAIN:
                first.setdefault(dispatch.node_id, dispatch)
        return [self._statistics.now_s - self._jobs.begun_s(d) for d in first.values()]

    @property
    def has_room(self) -> bool:
        """Whether a slot is free and a node idle, or a queue is to be filled up."""
        if self._idle_that(self._question()):
            return self._num_free > 0
        return self._jobs.has_room and self._num_free >= 0

    def assignments(self) -> Iterator[Assignment]:
        """Yield a job for every free slot that the scheduler wants to fill, and take its node.

        With prefetch a node that begins gets jobs to queue as well, and one at work gets another
        for each that it did, unless idle nodes wait for its slot.
        """
        may_work = self._question()
        idle = self._idle_that(may_work)
        for _ in range(self._num_free):
            job = self._options.scheduler.assign(idle, self._statistics.now_s)
            if job is None:
                break
            yield self._taken(job)
            yield from self._filling(job.node_id, 1, idle, may_work)
        if not idle and self._num_free >= 0:
            for node_id, jobs in self._jobs.take_with_room():
                yield from self._filling(node_id, jobs, idle, may_work)

    @property
    def are_free(self) -> bool:
        """Whether fewer nodes are at work than may be."""
        return self._jobs.num_nodes < max(1, self._statistics.concurrency)

    def next_offer_s(self) -> float:
        """Return when a free slot that could not be filled may be offered again, or infinity."""
        offers_s = self._breaker.probe_at_s, self._options.scheduler.next_due_s()
        later = [offer_s for offer_s in offers_s if offer_s > self._statistics.now_s]
        return min([self._membership.next_wake_s(), *later])

    def over(self, is_silent: bool) -> RunEnd | None:
        """Return the end of a run in which nobody is at work and the rule lets nobody begin.

        Others may come, anybody to a real fleet: they are waited for until the run `is_silent`,
        unless the rule has completed what it can.
        """
        barred, membership = self._rule.barred, self._membership
        if not barred or len(barred) < len(membership) or len(self._ledger):
            return None
        if self._rule.next_due_s() < math.inf or not all(n in barred for n in membership.nodes):
            return None
        end = self._rule.end_when_all_are_barred
        are_all = all(n in barred for n in membership.registered)
        is_closed = self._statistics.is_virtual or end.kind == "completed"
        if is_silent or (are_all and is_closed):
            return end
        if not self._has_warned:
            self._has_warned = True
            logger.warning("Nobody may work until others come: %s", end.detail)
        return None

    def _idle_that(self, may_work: Callable[[int], bool]) -> IdleNodes:
        """Return the idle nodes that may work now."""
        idle, is_capped = self._membership.idle, self._options.robust.max_influence is not None
        return Eligible(idle, may_work) if is_capped or self._rule.barred else idle

    def _question(self) -> Callable[..., bool]:
        """Return `_may_work` for one hand-out, in which the nodes are counted once."""
        return partial(self._may_work, num_heard=cache(self._count_heard))

    def _may_work(self, node_id: int, jobs: int = 0, *, num_heard: Callable[[], int]) -> bool:
        """Whether the rule lets a node work, and its share leaves room for one more than `jobs`."""
        if node_id in self._rule.barred:
            return False
        weight = (jobs + 1) * self._statistics.heaviest.get(node_id, 0.0)
        share = node_id, weight, self._statistics
        return self._options.robust.over_its_share(*share, num_heard) is None

    def over_its_share(self, node_id: int, weight: float) -> Rejection | None:
        """Return why an update of so much weight is too much of one node, if it is."""
        share = node_id, weight, self._statistics
        return self._options.robust.over_its_share(*share, lambda: self.num_heard)

    def look(self) -> None:
        """Count `num_heard` anew."""
        if self._options.robust.max_influence is not None:
            self.num_heard = self._count_heard()

    def _count_heard(self) -> int:
        """How many of the connected nodes can be expected to bring something."""
        membership, statistics = self._membership, self._statistics
        silent = {*membership.failing(), *statistics.fruitless_nodes(), *self._rule.barred}
        return len(membership) - sum(node_id in membership for node_id in silent)

    @property
    def _num_free(self) -> int:
        """How many more nodes may work; negative when a storm of failures forbids more jobs."""
        limit = self._breaker.limit(self._statistics.concurrency, self._statistics.now_s)
        return limit - self._jobs.num_nodes

    def _taken(self, job: Assignment) -> Assignment:
        self._membership.take(job.node_id)
        if self._options.per_node is None:
            return job
        return self._options.per_node.adapt(job, self._attributes(job.node_id))

    def _filling(
        self, node_id: int, jobs: int, idle: IdleNodes, may_work: Callable[..., bool]
    ) -> Iterator[Assignment]:
        """Yield what fills up the queue of a node that has `jobs`."""
        if self._options.max_prefetch and self._membership.may_queue(node_id):
            limit = 1 + self._options.prefetch_of(node_id, self._attributes(node_id))
            for queued in range(jobs, limit):
                may_queue = self._options.scheduler.may_queue(node_id, idle)
                if not (may_queue and may_work(node_id, queued)):
                    break
                yield self._taken(self._options.scheduler.plan(node_id, self._statistics.now_s))
