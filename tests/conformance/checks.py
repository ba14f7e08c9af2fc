"""What holds for every rule, whoever wrote it: functions of something that builds one.

`test_checks` takes the package's rules through them, and tests/rules/test_your_own_rule.py the ones
of docs/your-own-rule.md. They need no oracle: a rule is compared with itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedagent.nodes.geography import Blocks
from fedagent.rules import ASGD, Hierarchical, Periodic, Rule
from tests.conformance.clock import INITIAL, NUM_NODES, PERIOD_S, Arrival, arrivals, real_moments
from tests.conformance.replay import Event, RealRun, fleet

Build = Callable[[], Rule]

HISTORY: list[Arrival] = arrivals(seed=11, length=60)
WORKS = [work for _, work in HISTORY]


def check_a_resumed_rule_goes_on_with_the_same_bytes(build: Build) -> None:
    """Stop anywhere, also in the middle of a buffer: what was saved has the same future."""
    for stop_after in (0, 1, 4, 17, 30):
        straight, jobs = RealRun(build(), INITIAL, "float32"), {}
        for node in range(NUM_NODES):
            jobs[node] = straight.dispatch(node)
        fleet(straight, WORKS[:stop_after], jobs)
        state, jobs_then = straight.state(), dict(jobs)
        assert not unplain(state["rule"]), "a checkpoint holds tensors and plain values"
        expected = fleet(straight, WORKS[stop_after:], jobs)  # must not write into `state`

        for _ in range(2):  # nor may the run that was resumed from it
            resumed = RealRun(build(), [9.0] * len(INITIAL), "float32").resume(state)
            actual = fleet(resumed, WORKS[stop_after:], dict(jobs_then))
            assert [fingerprint(e) for e in actual] == [fingerprint(e) for e in expected]
            assert frozen(resumed.rule.state_dict()) == frozen(straight.rule.state_dict())


def check_only_the_delta_is_scratch(build: Build) -> None:
    """A rule may write into an update's delta, never into its base or what it carries."""
    run, jobs = RealRun(build(), INITIAL), {}
    for work in WORKS:
        fleet(run, [work], jobs)
        for dispatch in run.ledger.in_flight():
            sent = run.ledger.base(dispatch).vector.numpy().tobytes()
            assert sent == run.sent[dispatch.message_id], "a dispatched model has changed"


def check_counters_come_with_the_updates(build: Build) -> None:
    """The counter is the highest of the updates in a version, or also of those that wait."""
    counted = [replace(work, counter=10 + 3 * i - i % 7) for i, work in enumerate(WORKS)]
    highest = 0
    for work, event in zip(counted, fleet(RealRun(build(), INITIAL), counted), strict=True):
        highest = max(highest, work.counter if event.accepted else 0)
        assert event.counter <= highest, "a counter is of no update that was taken in"
        assert event.counter == highest or event.pending, "a counter is lost"


def check_pending_counts_what_no_version_holds(build: Build) -> None:
    """An update that makes no version waits; a version never leaves more waiting than before."""
    run, jobs, pending = RealRun(build(), INITIAL), {}, 0
    assert run.rule.pending == 0
    for work in WORKS:
        before = run.model.vector.clone()
        (event,) = fleet(run, [work], jobs)
        if not event.accepted:
            assert event.pending == pending, "a refused update is counted"
            assert torch.equal(run.model.vector, before), "a refused update has moved the model"
        elif event.published:
            assert 0 <= event.pending <= pending, "updates wait that came with a version"
        else:
            assert event.pending == pending + 1, "an update that makes no version does not wait"
        pending = event.pending


def check_the_only_edge_moves_the_root_as_the_rule_alone_would(build: Build) -> None:
    """In a hierarchy of one region a rule gives the same models, and versions of its own."""
    if build().needs_clock:
        with pytest.raises(ValueError, match="never publishes by itself"):
            in_one_region(build)
        return
    alone = fleet(RealRun(build(), INITIAL), WORKS)
    below = fleet(RealRun(in_one_region(build), INITIAL), WORKS)

    for field in ("tau", "accepted", "published", "version"):
        assert [getattr(e, field) for e in below] == [getattr(e, field) for e in alone], field
    published = [i for i, event in enumerate(alone) if event.published]
    np.testing.assert_allclose(
        [below[i].parameters for i in published],
        [alone[i].parameters for i in published],
        rtol=1e-9,
        atol=1e-9,
    )


def check_a_clock_publishes_it_or_is_refused(build: Build) -> None:
    """With ``publish_every_s`` versions come at multiples of it, each with something new in it."""
    if not build().allows_clock:
        with pytest.raises(ValueError, match="publish_every_s"):
            Periodic(build(), PERIOD_S)
        return
    moments = real_moments(build(), HISTORY)
    models = {version: model.tobytes() for _, version, _, model in moments}
    assert len(set(models.values())) == len(models) > 4, "a version equals another one"
    first_seen = {version: at_s for at_s, version, *_ in reversed(moments)}
    assert all(at_s % PERIOD_S == 0 for version, at_s in first_seen.items() if version)


def check_a_flush_leaves_nothing_to_flush(build: Build) -> None:
    """`flush` says whether the model is new; a second one finds nothing, and moves nothing."""
    run = RealRun(build(), INITIAL)
    fleet(run, WORKS[:7])
    run.rule.flush(run.model)
    flushed = run.model.vector.clone()
    assert not run.rule.flush(run.model)
    assert torch.equal(run.model.vector, flushed)


CHECKS: list[Callable[[Build], None]] = [
    check_a_resumed_rule_goes_on_with_the_same_bytes,
    check_only_the_delta_is_scratch,
    check_counters_come_with_the_updates,
    check_pending_counts_what_no_version_holds,
    check_the_only_edge_moves_the_root_as_the_rule_alone_would,
    check_a_clock_publishes_it_or_is_refused,
    check_a_flush_leaves_nothing_to_flush,
]


def in_one_region(build: Build) -> Hierarchical:
    """The rule as the only edge, and a root beside it that takes over every version at once."""
    return Hierarchical(Blocks(1, NUM_NODES), build, ASGD(), send_every=1, merge_weight=1.0)


def fingerprint(event: Event) -> tuple[Any, ...]:
    """Return an event as something that compares bit by bit."""
    return (
        event.tau,
        event.accepted,
        event.weight,
        event.published,
        event.pending,
        event.version,
        event.counter,
        event.parameters.tobytes(),
    )


def frozen(state: Any) -> Any:
    """Return `state` as something that compares bit by bit."""
    if isinstance(state, torch.Tensor):
        return (str(state.dtype), tuple(state.shape), state.numpy().tobytes())
    if isinstance(state, Mapping):
        return {key: frozen(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [frozen(value) for value in state]
    return state


def unplain(state: Any) -> list[Any]:
    """Return what a checkpoint without pickle could not hold."""
    if isinstance(state, Mapping):
        keys = [key for key in state if not isinstance(key, str)]
        return keys + [x for value in state.values() for x in unplain(value)]
    if isinstance(state, list | tuple):
        return [x for value in state for x in unplain(value)]
    plain = state is None or isinstance(state, torch.Tensor | bool | int | float | str)
    return [] if plain else [state]
