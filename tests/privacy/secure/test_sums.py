"""A sum is the survivors', exactly, and a mistake in the protocol does not go unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent.privacy.secure import FixedPoint, Member, Stage, answer_of, pairs
from tests.privacy.secure.protocol import Talk, changes_of


def test_the_sum_of_all_is_exact():
    changes = changes_of(5, 1000)
    outcome = Talk(changes).run()
    assert outcome.reason == ""
    assert outcome.survivors == outcome.members == (100, 101, 102, 103, 104)
    np.testing.assert_array_equal(outcome.total, changes.sum(axis=0))


@pytest.mark.parametrize(
    "vanish",
    [
        {Stage.SHARE: (0, 4, 9)},
        {Stage.MASK: (0, 4, 9)},
        {Stage.SHARE: (1,), Stage.MASK: (2, 3)},
        {Stage.MASK: (1, 2), Stage.REVEAL: (5,)},
        {Stage.REVEAL: (7, 8, 9)},
    ],
)
def test_three_of_ten_may_vanish_anywhere_and_the_sum_of_the_rest_is_exact(vanish):
    changes = changes_of(10, 300)
    outcome = Talk(changes, vanish).run()
    assert outcome.reason == ""
    # One that vanished after its masked update had come is in the sum.
    lost = {*vanish.get(Stage.SHARE, ()), *vanish.get(Stage.MASK, ())}
    left = [place for place in range(10) if place not in lost]
    assert outcome.survivors == tuple(100 + place for place in left)
    np.testing.assert_array_equal(outcome.total, changes[left].sum(axis=0))


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.MASK, Stage.REVEAL])
def test_with_fewer_than_the_threshold_there_is_no_sum(stage):
    outcome = Talk(changes_of(10, 20), {stage: (0, 1, 2, 3)}).run()
    assert outcome.total is None
    assert outcome.reason == "too-few-members"


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 9),
    st.integers(1, 40),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_any_sum_is_within_half_a_step_for_each_member(number, num_params, limit, seed):
    changes = np.random.default_rng(seed).uniform(-2 * limit, 2 * limit, (number, num_params))
    changes = changes.astype(np.float32)
    total = Talk(changes, limit=limit).run().total
    wanted = np.clip(changes.astype(np.float64), -limit, limit).sum(axis=0)
    assert np.abs(total - wanted).max() <= number * 0.5 / FixedPoint(limit, number).scale


@pytest.mark.parametrize("number", [3, 10, 1000])
@pytest.mark.parametrize("limit", [1e-6, 1.0, 4.0, 1e6])
def test_the_largest_numbers_of_all_do_not_run_over(number, limit):
    point = FixedPoint(limit, number)
    for sign in (1, -1):
        words = point.encode(np.full(1, sign * np.inf))
        total = np.zeros(1, np.uint32)
        for _ in range(number):
            total += words
        assert point.decode(total)[0] == pytest.approx(sign * number * limit, rel=1e-5)


def test_whatever_a_member_sends_the_mean_stays_within_twice_the_limit():
    def say(stage, place, answer):
        if stage is Stage.MASK and place == 0:
            masked = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32)
            return {"masked": masked}
        return answer

    total = Talk(changes_of(10, 5000), limit=4.0, say=say).run().total
    assert 4.0 < np.abs(total / 10).max() <= 8.0


# --- planted mistakes -------------------------------------------------------------------------


def test_a_mask_of_a_pair_that_is_missing_leaves_no_sum(monkeypatch):
    changes = changes_of(5, 100)
    honest = pairs.Pairs.add_masks

    def forgets_the_last(self, words, seed, place, others, sign=1):
        honest(self, words, seed, place, [p for p in others if (place, p) != (0, 4)], sign)

    monkeypatch.setattr(pairs.Pairs, "add_masks", forgets_the_last)
    total = Talk(changes).run().total
    assert (total != changes.sum(axis=0)).mean() > 0.99


def test_a_pair_whose_masks_have_one_sign_leaves_no_sum(monkeypatch):
    changes = changes_of(5, 100)
    monkeypatch.setattr(pairs, "_add", lambda words, mask, sign: np.add(words, mask, out=words))
    assert (Talk(changes).run().total != changes.sum(axis=0)).mean() > 0.99


def wrong_share_of(sharers):
    def say(stage, place, answer):
        if stage is Stage.REVEAL and place in sharers:
            return answer | {"shares": answer["shares"] ^ 1}
        return answer

    return say


@pytest.mark.parametrize("vanish", [{}, {Stage.MASK: (5,)}])
def test_one_wrong_share_among_enough_does_no_harm(vanish):
    changes = changes_of(6, 50)
    outcome = Talk(changes, vanish, threshold=4, say=wrong_share_of((0,))).run()
    left = [place for place in range(6) if place not in vanish.get(Stage.MASK, ())]
    np.testing.assert_array_equal(outcome.total, changes[left].sum(axis=0))


def test_too_many_wrong_shares_end_the_sum_and_not_the_model():
    outcome = Talk(changes_of(6, 50), threshold=4, say=wrong_share_of((0, 1, 2))).run()
    assert outcome.total is None
    assert outcome.reason == "bad-shares"


def test_shares_that_do_not_open_are_left_out():
    def say(stage, place, answer):
        if stage is Stage.SHARE and place == 2:
            return answer | {"sealed": np.zeros_like(answer["sealed"])}
        return answer

    changes = changes_of(6, 50)
    talk = Talk(changes, threshold=4, say=say)
    outcome = talk.run()
    # Nobody can take that member's own mask off: it hides in the sum for ever.
    assert outcome.reason == "bad-shares"
    told = talk.heard[Stage.REVEAL][0]
    assert told["has_share"].tolist() == [1, 1, 0, 1, 1, 1]
    assert not told["shares"][2].any()


def test_an_answer_is_of_the_form_that_is_expected():
    talk = Talk(changes_of(4, 7))
    talk.run()
    for stage, heard in talk.heard.items():
        wanted = {s.name: (s.shape, s.dtype) for s in answer_of(stage, 4, 7)}
        for answer in heard.values():
            assert {name: (a.shape, str(a.dtype)) for name, a in answer.items()} == wanted


def test_a_member_is_what_it_was_after_a_rest_in_a_context():
    member = Member(np.arange(5, dtype=np.float32))
    again = Member.of_arrays(member.to_arrays())
    assert (again.public_keys == member.public_keys).all()
    assert again.self_seed == member.self_seed
    assert (again.change == member.change).all()
    assert again.stage == Stage.KEEP
