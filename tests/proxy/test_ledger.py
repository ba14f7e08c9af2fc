"""The ledger: who was asked, from which version, and that a reply counts once."""

import weakref

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fedagent.proxy.ledger import Ledger, Version
from fedagent.update import Dispatch


def version(number: int) -> Version:
    return Version(number, torch.full((2,), float(number)), payload=f"payload-{number}")


def dispatch(message_id: str, base: int, node_id: int = 1) -> Dispatch:
    return Dispatch(message_id, node_id, base, "token", sent_at_s=0.0, deadline_s=60.0)


def ledger_at(number: int) -> Ledger:
    ledger = Ledger()
    ledger.publish(version(number))
    return ledger


def test_staleness_counts_versions_published_since_the_dispatch():
    ledger = ledger_at(0)
    slow = dispatch("slow", base=0)
    ledger.open(slow)
    assert ledger.staleness(slow) == 0

    ledger.publish(version(1))
    ledger.publish(version(2))
    fresh = dispatch("fresh", base=2)
    ledger.open(fresh)

    assert ledger.staleness(slow) == 2
    assert ledger.staleness(fresh) == 0


def test_base_is_the_version_that_was_sent_not_the_newest():
    ledger = ledger_at(0)
    slow = dispatch("slow", base=0)
    ledger.open(slow)

    ledger.publish(version(1))

    assert ledger.base(slow).number == 0
    assert torch.equal(ledger.base(slow).vector, torch.zeros(2))
    assert ledger.base(slow).payload == "payload-0"


def test_reply_settles_its_dispatch_exactly_once():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))
    ledger.open(dispatch("b", base=0))

    assert ledger.settle("a").message_id == "a"
    with pytest.raises(KeyError):
        ledger.settle("a")

    assert ledger.get("a") is None
    assert len(ledger) == 1
    assert list(ledger.awaited()) == ["b"]


def test_unknown_reply_changes_nothing():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))

    with pytest.raises(KeyError):
        ledger.settle("never-sent")

    assert list(ledger.awaited()) == ["a"]
    assert ledger.versions() == [0]


def test_message_id_cannot_be_in_flight_twice():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))

    with pytest.raises(ValueError, match="'a'"):
        ledger.open(dispatch("a", base=0))

    ledger.settle("a")
    ledger.publish(version(1))
    assert ledger.versions() == [1], "the refused dispatch still holds its version"


def test_version_nobody_knows_cannot_be_dispatched():
    ledger = ledger_at(1)

    with pytest.raises(KeyError):
        ledger.open(dispatch("a", base=0))

    assert len(ledger) == 0


def test_version_lives_until_the_last_update_from_it_settled():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))
    ledger.open(dispatch("b", base=0))
    ledger.publish(version(1))
    ledger.publish(version(2))
    assert ledger.versions() == [0, 2]

    ledger.settle("a")
    assert ledger.versions() == [0, 2]

    ledger.settle("b")
    assert ledger.versions() == [2]


@pytest.mark.parametrize("close", [Ledger.settle, Ledger.expire])
def test_a_model_that_only_its_node_got_lives_as_long_as_the_dispatch(close):
    ledger, own = ledger_at(0), version(5)
    alive = weakref.ref(own)
    ledger.open(dispatch("a", base=0), own)
    assert ledger.base(dispatch("a", base=0)) is own
    del own
    assert alive() is not None
    close(ledger, "a")
    assert alive() is None
    assert ledger.state_dict()["own_bases"] == {}


def test_newest_version_lives_without_anybody_using_it():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))
    ledger.settle("a")

    assert ledger.versions() == [0]
    assert ledger.current is not None
    assert ledger.current.number == 0


def test_expired_dispatch_frees_its_version_and_is_known_as_late_once():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0, node_id=7))
    ledger.publish(version(1))

    ledger.expire("a")

    assert ledger.versions() == [1]
    assert len(ledger) == 0
    assert list(ledger.awaited()) == ["a"], "the late reply must still be pulled from the grid"
    late = ledger.late("a")
    assert late is not None
    assert late.node_id == 7
    assert ledger.late("a") is None
    assert list(ledger.awaited()) == []


def test_reply_in_time_is_never_late():
    ledger = ledger_at(0)
    ledger.open(dispatch("a", base=0))
    ledger.settle("a")

    assert ledger.late("a") is None


def test_dispatches_in_flight_come_oldest_first_and_may_settle_meanwhile():
    ledger = ledger_at(0)
    for message_id in "cab":
        ledger.open(dispatch(message_id, base=0))

    seen = []
    for d in ledger.in_flight():
        ledger.settle(d.message_id)
        seen.append(d.message_id)

    assert seen == ["c", "a", "b"]
    assert len(ledger) == 0


def test_no_update_is_older_than_a_model_of_its_node_s_own_whose_work_was_undone():
    ledger = ledger_at(7)
    ledger.open(dispatch("a", base=7), version(5))

    assert ledger.staleness(ledger.get("a"), newest=8) == 3
    assert ledger.staleness(ledger.get("a"), newest=5) == 0
    assert ledger.staleness(ledger.get("a"), newest=3) == 0, "it counts anew"


def due(ledger: Ledger, message_id: str, deadline_s: float) -> None:
    ledger.open(Dispatch(message_id, 1, 0, "token", sent_at_s=0.0, deadline_s=deadline_s))


def test_the_first_due_is_the_first_whatever_was_sent_and_settled_meanwhile():
    ledger = ledger_at(0)
    assert ledger.first_due() is None
    due(ledger, "late", 1000.0)
    due(ledger, "soon", 10.0)
    for number in range(300):
        due(ledger, f"done-{number}", 5.0)
        ledger.settle(f"done-{number}")

    assert ledger.first_due().message_id == "soon"
    ledger.settle("soon")
    assert ledger.first_due().message_id == "late"


def test_deadlines_of_what_was_settled_are_not_kept_behind_one_that_waits():
    ledger = ledger_at(0)
    due(ledger, "waits", 1.0)
    for number in range(1000):
        due(ledger, f"done-{number}", 60.0)
        ledger.settle(f"done-{number}")

    assert ledger.first_due().message_id == "waits"
    assert len(ledger._due) < 100


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, the ledger agrees with a dictionary."""

    sent = Bundle("sent")
    expired = Bundle("expired")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger_at(0)
        self.newest = 0
        self.bases: dict[str, int] = {}
        self.overdue: set[str] = set()
        self.count = 0

    @rule()
    def publish(self) -> None:
        self.newest += 1
        self.ledger.publish(version(self.newest))

    @rule(target=sent, node_id=st.integers(0, 3))
    def open(self, node_id: int) -> str:
        self.count += 1
        message_id = f"m{self.count}"
        self.ledger.open(dispatch(message_id, self.newest, node_id))
        self.bases[message_id] = self.newest
        return message_id

    @rule(message_id=consumes(sent))
    def settle_twice(self, message_id: str) -> None:
        base = self.bases.pop(message_id)
        assert self.ledger.settle(message_id).version == base
        with pytest.raises(KeyError):
            self.ledger.settle(message_id)

    @rule(target=expired, message_id=consumes(sent))
    def expire(self, message_id: str) -> str:
        del self.bases[message_id]
        self.overdue.add(message_id)
        self.ledger.expire(message_id)
        return message_id

    @rule(message_id=consumes(expired))
    def late_reply_comes_twice(self, message_id: str) -> None:
        self.overdue.remove(message_id)
        assert self.ledger.late(message_id) is not None
        assert self.ledger.late(message_id) is None

    @rule()
    def save_and_load(self) -> None:
        state = self.ledger.state_dict()
        self.ledger = Ledger()
        self.ledger.load_state_dict(state)

    @invariant()
    def only_versions_in_use_live(self) -> None:
        assert self.ledger.versions() == sorted({self.newest, *self.bases.values()})

    @invariant()
    def every_base_is_what_was_published(self) -> None:
        for d in self.ledger.in_flight():
            base = self.ledger.base(d)
            assert base.number == self.bases[d.message_id]
            assert torch.equal(base.vector, version(base.number).vector)
            assert self.ledger.staleness(d) == self.newest - base.number

    @invariant()
    def every_reply_that_may_come_is_awaited(self) -> None:
        assert set(self.ledger.awaited()) == set(self.bases) | self.overdue
        assert len(self.ledger) == len(self.bases)


AnyHistory.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
