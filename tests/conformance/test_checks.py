"""Every rule of the package passes what any rule must, and a broken one does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedagent import rules
from fedagent.mixing import Mixing, ring
from fedagent.rules import ASGD, BufferedRule, FedAsync, FedBuff, Periodic, too_stale
from fedagent.rules.staleness import constant
from tests.conformance import checks
from tests.conformance.cases import CASES
from tests.conformance.cases_clock import CLOCK_CASES
from tests.conformance.checks import CHECKS, Build
from tests.conformance.clock import NUM_NODES

BUILDS = {
    **{case.family: case.rule for case in CASES},
    "fedbuff-without-a-size": lambda: rules.FedBuff(None),
    "mixing": lambda: Mixing(ring(NUM_NODES), buffer_size=2),
    "periodic": lambda: Periodic(rules.FedBuff(2), 1.0),
    **{case.name: case.rule for case in CLOCK_CASES if case.name.startswith(("FedAvg", "FedMed"))},
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS.keys())
def test_rule_passes(build, check):
    check(build)


REMEMBERING = [c for c in CASES if c.family not in ("fedasync", "fedbuff", "asgd")]


@pytest.mark.parametrize("case", REMEMBERING, ids=lambda case: case.name)
def test_rule_is_resumed_whatever_its_settings(case):
    checks.check_a_resumed_rule_goes_on_with_the_same_bytes(case.rule)


class Forgetful(BufferedRule):
    """Counts what its state does not hold."""

    seen = 0

    def weight(self, update):
        self.seen += 1
        return float(self.seen)

    def step(self, model, mean):
        model.vector.add_(mean)


class SharesItsState(FedBuff):
    def extra_state(self):
        return {"sum": self.buffer._sum}

    def load_extra_state(self, state):
        self.buffer._sum = state["sum"]


class WritesIntoTheBase(FedAsync):
    def receive(self, model, update):
        published = super().receive(model, update)
        update.base.add_(1.0)
        return published


class DropsWhatIsCarried(ASGD):
    def receive(self, model, update):
        return super().receive(model, replace(update, carried={}))


class TakesCountersOfWhatItRefuses(FedAsync):
    def rejection(self, update):
        if update.staleness < 3:
            return None
        self.model.carry(update.carried)
        return too_stale(update)

    def on_start(self, model):
        self.model = model


class KeepsNothingInSight(FedBuff):
    pending = 0


class MovesForWhatItRefuses(ASGD):
    def rejection(self, update):
        if update.staleness:
            self.refused = True
            return too_stale(update)
        return None

    def receive(self, model, update):
        return super().receive(model, update) and not getattr(self, "refused", False)


class CountsVersionsOfItsOwn(ASGD):
    """Goes by a number that is the proxy's to count, and writes it."""

    def receive(self, model, update):
        model.version += 1
        return super().receive(model, update)


class FlushesForEver(FedBuff):
    def flush(self, model):
        super().flush(model)
        return True


class OnlySaysItFlushes(FedBuff):
    def flush(self, model):
        return self.pending > 0


BROKEN: dict[str, tuple[Build, Callable[[Build], None]]] = {
    "forgetful": (lambda: Forgetful(3), checks.check_a_resumed_rule_goes_on_with_the_same_bytes),
    "shares-its-state": (
        lambda: SharesItsState(3, staleness=constant),
        checks.check_a_resumed_rule_goes_on_with_the_same_bytes,
    ),
    "writes-into-the-base": (WritesIntoTheBase, checks.check_only_the_delta_is_scratch),
    "drops-what-is-carried": (DropsWhatIsCarried, checks.check_counters_come_with_the_updates),
    "takes-counters-of-what-it-refuses": (
        TakesCountersOfWhatItRefuses,
        checks.check_counters_come_with_the_updates,
    ),
    "keeps-nothing-in-sight": (
        lambda: KeepsNothingInSight(3),
        checks.check_pending_counts_what_no_version_holds,
    ),
    "moves-for-what-it-refuses": (
        MovesForWhatItRefuses,
        checks.check_pending_counts_what_no_version_holds,
    ),
    "counts-versions-of-its-own": (
        CountsVersionsOfItsOwn,
        checks.check_the_only_edge_moves_the_root_as_the_rule_alone_would,
    ),
    "flushes-for-ever": (lambda: FlushesForEver(3), checks.check_a_flush_leaves_nothing_to_flush),
    "publishes-the-same-model": (
        lambda: OnlySaysItFlushes(None),
        checks.check_a_clock_publishes_it_or_is_refused,
    ),
}


@pytest.mark.parametrize(("build", "check"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_rule_is_noticed(build, check):
    with pytest.raises(AssertionError):
        check(build)
