"""What travels between the proxy and its nodes: fixed once made, plain where nothing is said."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from fedagent.update import Dispatch, Kind, Outcome, Rejection, Update

DISPATCH = Dispatch("id", 7, 3, "token", 1.5, 60.0)
REJECTION = Rejection(Outcome.REJECTED, "non-finite", "the client model holds NaN")


def update() -> Update:
    return Update(7, torch.zeros(2), torch.zeros(2), 4)


@pytest.mark.parametrize(
    ("made", "field"), [(DISPATCH, "version"), (update(), "staleness"), (REJECTION, "reason")]
)
def test_nothing_changes_once_it_is_made(made, field):
    with pytest.raises(FrozenInstanceError):
        setattr(made, field, getattr(made, field))
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(made, "of_its_own", 1)  # no room for anything else: there are many


def test_a_dispatch_is_known_by_what_it_says():
    assert Dispatch("id", 7, 3, "token", 1.5, 60.0) == DISPATCH
    assert Dispatch("id", 7, 4, "token", 1.5, 60.0) != DISPATCH
    assert (DISPATCH.node_id, DISPATCH.version, DISPATCH.token) == (7, 3, "token")
    assert (DISPATCH.sent_at_s, DISPATCH.deadline_s) == (1.5, 60.0)


def test_a_dispatch_asks_for_training_and_leaves_the_rest_to_the_client():
    assert DISPATCH.kind is Kind.TRAIN
    assert DISPATCH.local_steps is DISPATCH.learning_rate is None


def test_an_update_is_itself_and_no_other():
    one, other = update(), update()
    assert one != other, "two of the same numbers are two updates"
    assert [one, other].index(other) == 1


def test_an_update_of_which_only_the_delta_is_known_counts_once_and_carries_nothing():
    plain, other = update(), update()
    assert (plain.num_examples, plain.duration_s, plain.arrived_s) == (1.0, 0.0, 0.0)
    assert plain.local_steps is None
    assert plain.carried == plain.metrics == {}
    assert plain.carried is not other.carried


def test_a_rejection_blames_its_node_unless_it_says_otherwise():
    assert REJECTION.blames_node
    assert not Rejection(Outcome.REJECTED, "too-stale", "late", blames_node=False).blames_node


def test_kinds_and_outcomes_are_the_words_that_files_and_messages_hold():
    assert [str(kind) for kind in Kind] == ["train", "evaluate", "unmask"]
    assert [str(outcome) for outcome in Outcome] == ["applied", "rejected", "failed", "expired"]
