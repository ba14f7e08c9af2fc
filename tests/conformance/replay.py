"""Runs arrivals through the real ledger, model and rule, or through an oracle, and compares.

`RealRun` and `OracleRun` have the same two verbs, ``dispatch(node) -> job`` and
``arrive(job, work) -> Event``. `replay` scripts the base version of every arrival; `fleet` lets
nodes arrive in any order and hands each its next job at once.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedagent.model import FlatModel, ModelSpec
from fedagent.proxy.ledger import Ledger, Version
from fedagent.rules import Rule
from fedagent.rules.staleness import Staleness
from fedagent.update import Dispatch, Update
from tests.conformance.oracle import Oracle, Reply, Step, Vector

WEIGHT, COUNTER = "linear.weight", "norm.num_batches_tracked"


@dataclass(frozen=True)
class Work:
    """What one node sends: Delta, its examples, and the BatchNorm counter of its model.

    `local_steps` is what it was asked for, None where the ClientApp decides.
    """

    node: int
    delta: tuple[float, ...]
    num_examples: float = 1.0
    counter: int = 0
    local_steps: int | None = None


@dataclass(frozen=True)
class Event:
    """The state after one arrival, and the tau and the weight that the arrival was given."""

    tau: int
    accepted: bool
    weight: float | None
    published: bool
    pending: int
    version: int
    parameters: Vector
    counter: int


class Run(Protocol):
    version: int

    def dispatch(self, node: int) -> str: ...

    def arrive(self, job: str, work: Work) -> Event: ...


class RealRun:
    """fedagent's ledger, model and rule, without a network.

    Replies are whole client models, turned into updates the way admission does it.
    """

    def __init__(self, rule: Rule, initial: Sequence[float], dtype: str = "float64") -> None:
        arrays = {WEIGHT: np.array(initial, dtype), COUNTER: np.array(0)}
        self.model = FlatModel(ModelSpec.of(arrays), arrays)
        self.ledger = Ledger()
        self.rule = rule
        self._weights: list[float] = []
        self._jobs = 0
        self.published: dict[int, bytes] = {}
        self.sent: dict[str, bytes] = {}
        self._listen(rule)
        self._publish()
        rule.on_start(self.model)

    @property
    def version(self) -> int:
        return self.model.version

    def dispatch(self, node: int) -> str:
        self._jobs += 1
        job = f"job-{self._jobs}"
        self.rule.register_node(node, {"partition-id": node})
        own, number = self.rule.model_for(node), self.rule.version_for(node)
        number = self.version if number is None else number
        base = None if own is None else Version(number, own.clone(), None)
        dispatch = Dispatch(job, node, self.version, "token", sent_at_s=0.0, deadline_s=1.0)
        self.ledger.open(dispatch, base)
        self.sent[job] = self.ledger.base(dispatch).vector.numpy().tobytes()
        return job

    def arrive(self, job: str, work: Work, at_s: float = 0.0) -> Event:
        dispatch, before = self.ledger.get(job), self.version
        assert dispatch is not None, f"{job} is not in flight"
        newest = self.rule.version_for(work.node)
        base, tau = self.ledger.base(dispatch), self.ledger.staleness(dispatch, newest)
        update = self._update(base, tau, work, at_s)
        self.ledger.settle(job)
        self._weights.clear()
        accepted = self.rule.rejection(update) is None
        if accepted and self.rule.receive(self.model, update):
            self._publish_next()
        self.advance(at_s)
        published = self.version > before
        arrays = self.model.arrays()
        return Event(
            tau,
            accepted,
            self._weights[0] if self._weights else None,
            published,
            self.rule.pending,
            self.version,
            arrays[WEIGHT].copy(),
            int(arrays[COUNTER]),
        )

    def advance(self, now_s: float) -> None:
        """Let the rule do what is due by now."""
        while (due_s := self.rule.next_due_s()) <= now_s:
            if self.rule.advance(self.model, due_s):
                self._publish_next()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "rule": self.rule.state_dict(),
            "model": self.model.state_dict(),
            "ledger": copy.deepcopy(self.ledger.state_dict()),
            "jobs": self._jobs,
            "published": dict(self.published),
        }

    def resume(self, state: dict[str, Any]) -> "RealRun":
        """Go on from what `state` returned, in this run, which is fresh."""
        self.rule.load_state_dict(state["rule"])
        self.model.load_state_dict(state["model"])
        self.ledger.load_state_dict(state["ledger"])
        self._jobs, self.published = state["jobs"], dict(state["published"])
        self.rule.on_start(self.model)
        return self

    def _update(self, base: Version, tau: int, work: Work, at_s: float) -> Update:
        dispatched = self.model.spec.unflatten(base.vector, self.model.carried)[WEIGHT]
        client = {
            WEIGHT: dispatched + np.array(work.delta),
            COUNTER: np.array(work.counter),
        }
        vector, carried = self.model.spec.flatten(client)
        return Update(
            work.node,
            vector.sub_(base.vector),
            base.vector,
            tau,
            work.num_examples,
            carried,
            metrics={"num-examples": work.num_examples, "partition-id": work.node},
            local_steps=work.local_steps,
            arrived_s=at_s,
        )

    def _publish_next(self) -> None:
        self.model.version += 1
        self._publish()

    def _publish(self) -> None:
        self.published[self.version] = self.model.vector.numpy().tobytes()
        self.ledger.publish(Version(self.version, self.model.vector.clone(), None))

    def _listen(self, rule: Rule) -> None:
        """Note every weight the rule asks its staleness function for."""
        right: Staleness | None = getattr(rule, "staleness", None)
        if right is None:
            return

        def heard(tau: int) -> float:
            self._weights.append(right(tau))
            return self._weights[-1]

        rule.staleness = heard  # type: ignore[attr-defined]


class OracleRun:
    """The same verbs with a list of all versions in place of a ledger."""

    def __init__(self, oracle: Oracle, initial: Sequence[float]) -> None:
        self.x = np.array(initial, np.float64)
        self.versions = [self.x]
        self._oracle, self._bases, self._counter = oracle, [], 0

    @property
    def version(self) -> int:
        return len(self.versions) - 1

    def dispatch(self, node: int) -> str:
        self._bases.append(self.version)
        if note := getattr(self._oracle, "dispatched", None):  # nodes have models of their own
            note(node)
        return str(len(self._bases) - 1)

    def ask(self, job: str, work: Work) -> Step:
        """Ask the oracle about an arrival, without taking over what it says."""
        base = self._bases[int(job)]
        tau = self.version - base
        return self._oracle(
            self.x,
            Reply(
                work.node,
                self.versions[base],
                np.array(work.delta),
                tau,
                work.num_examples,
                work.local_steps,
                self.version,
            ),
        )

    def arrive(self, job: str, work: Work) -> Event:
        tau = self.version - self._bases[int(job)]
        step = self.ask(job, work)
        self.x = step.x
        if step.accepted:
            self._counter = max(self._counter, work.counter)
        if step.published:
            self.versions.append(step.x)
        return Event(
            tau,
            step.accepted,
            step.weight,
            step.published,
            step.pending,
            self.version,
            step.x,
            self._counter,
        )


def replay(run: Run, arrivals: Sequence[tuple[int, Work]]) -> list[Event]:
    """Let works arrive in order, each dispatched from the version scripted as (base, work)."""
    return list(replaying(run, arrivals))


def replaying(run: Run, arrivals: Sequence[tuple[int, Work]]) -> Iterator[Event]:
    """Do what `replay` does, one event at a time: a wrong run may not get to the script's end."""
    jobs: dict[int, str] = {}
    for i, (_, work) in enumerate(arrivals):
        for j in range(i, len(arrivals)):
            if arrivals[j][0] == run.version and j not in jobs:
                jobs[j] = run.dispatch(arrivals[j][1].node)
        assert i in jobs, f"arrival {i} starts from a version that is not published yet"
        yield run.arrive(jobs[i], work)


def fleet(run: Run, works: Iterable[Work], jobs: dict[int, str] | None = None) -> list[Event]:
    """Let nodes arrive in the order of `works`, each starting over from the newest version.

    `jobs` (node -> job) is what is in flight before and, changed in place, after.
    """
    jobs = {} if jobs is None else jobs
    works = list(works)
    for node in sorted({work.node for work in works} - set(jobs)):
        jobs[node] = run.dispatch(node)
    events = []
    for work in works:
        events.append(run.arrive(jobs[work.node], work))
        jobs[work.node] = run.dispatch(work.node)
    return events


def assert_same_trace(actual: Iterable[Event], expected: Iterable[Event], tolerance: float) -> None:
    """Compare event by event; parameters to `tolerance` (absolute), everything else exactly.

    The first difference is reported by event number and field; weights may differ by rounding.
    """
    for i, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        for field in ("tau", "accepted", "published", "pending", "version", "counter"):
            a, e = getattr(ours, field), getattr(theirs, field)
            assert a == e, f"event {i}: {field} is {a}, not {e}"
        a, e = ours.weight, theirs.weight
        close = a is e is None or (None not in (a, e) and abs(a - e) <= 1e-12)
        assert close, f"event {i}: weight is {a}, not {e}"
        error = np.abs(ours.parameters - theirs.parameters).max()
        assert error <= tolerance, (
            f"event {i}: parameters are {ours.parameters}, "
            f"not {theirs.parameters} (error {error:.2g})"
        )
