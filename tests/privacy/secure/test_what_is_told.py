"""What the proxy hears says nothing but the sum, and a member says no more than is safe."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedagent.privacy.secure import FixedPoint, Member, Question, Stage, UnsafeQuestionError
from fedagent.privacy.secure import member as member_module
from fedagent.privacy.secure import pairs as pairs_module
from fedagent.privacy.secure.masks import SEALED_BYTES, derived, joined, mask
from tests.privacy.secure.protocol import Talk, changes_of

NUM_PARAMS = 40_000
CHANCE = 1e-9
"""Keys are new in every test, and a p-value that small comes by chance once in a billion times."""


def uniformity(words: np.ndarray) -> float:
    """Return the least p-value of chi-square tests of each byte of words, times their number."""
    by_byte = words.astype("<u4").view(np.uint8).reshape(-1, 4)
    tests = [stats.chisquare(np.bincount(by_byte[:, k], minlength=256)).pvalue for k in range(4)]
    return 4 * min(tests)


def masked(talk: Talk) -> np.ndarray:
    return np.stack([heard["masked"] for heard in talk.heard[Stage.MASK].values()])


def without_own_masks(talk: Talk) -> np.ndarray:
    """What the proxy makes of each masked update with the seeds that it has learnt at the end."""
    words = masked(talk)
    for place, seed in talk.seeds.items():
        pairs_module.add_self_mask(words[place], seed, -1)
    return words


@pytest.fixture
def talk():
    """A talk after which the proxy knows what it may: the sum, and every member's own mask."""
    talk = Talk(np.zeros((5, NUM_PARAMS)))
    talk.seeds = {place: member.self_seed for place, member in enumerate(talk.members)}
    talk.run()
    return talk


def test_masked_updates_of_zeros_are_uniform(talk):
    words = masked(talk)
    assert all(uniformity(row) > CHANCE for row in words)
    assert uniformity(words.ravel()) > CHANCE


def test_with_their_own_masks_off_all_but_one_are_still_uniform_and_independent(talk):
    words = without_own_masks(talk)
    assert all(uniformity(row) > CHANCE for row in words)
    # Any four determine the fifth, by the sum, and are random by themselves.
    for first in range(4):
        for second in range(first + 1, 4):
            assert uniformity(words[first] - words[second]) > CHANCE
            assert uniformity(words[first] + words[second]) > CHANCE
    assert not words.sum(axis=0, dtype=np.uint32).any()


def test_updates_with_the_same_sum_cannot_be_told_apart():
    first = np.zeros((4, NUM_PARAMS))
    second = first.copy()
    second[0], second[1] = 2.0, -2.0
    seen = []
    for changes in (first, second):
        talk = Talk(changes)
        talk.seeds = {place: member.self_seed for place, member in enumerate(talk.members)}
        np.testing.assert_array_equal(talk.run().total, 0.0)
        seen.append(without_own_masks(talk))
    for one, other in zip(*seen, strict=True):
        assert stats.ks_2samp(one.astype(np.float64), other.astype(np.float64)).pvalue > CHANCE
        counts = np.stack([np.bincount(words >> 24, minlength=256) for words in (one, other)])
        assert stats.chi2_contingency(counts).pvalue > CHANCE


def test_the_mask_of_one_pair_used_twice_is_seen(monkeypatch):
    """The control of the tests above: a proxy subtracts, and the mask is gone."""
    monkeypatch.setattr(
        pairs_module, "agreed", lambda seed, public, purpose: derived(b"the same", b"mask")
    )
    talk = Talk(np.zeros((4, NUM_PARAMS)))
    talk.seeds = {place: member.self_seed for place, member in enumerate(talk.members)}
    talk.run()
    words = without_own_masks(talk)
    differences = [words[i] + words[3 - i] for i in range(2)]
    assert min(uniformity(row) for row in [*words, *differences]) < CHANCE


def late_and_bare(change: np.ndarray) -> np.ndarray:
    """What the proxy makes of an update that comes after its member was named as vanished."""
    changes = np.zeros((5, NUM_PARAMS))
    changes[4] = change
    talk = Talk(changes, {Stage.MASK: (4,)})
    assert talk.run().total is not None
    late = talk.members[4]
    nothing = {"sealed": np.zeros((5, SEALED_BYTES), np.uint8)}
    words = late.answer(Question(Stage.MASK, 4, 4.0, tuple(range(5)), nothing))["masked"]
    # The others have told the shares of this seed.
    pairs_module.Pairs(late.keys).add_masks(words, late.mask_seed, 4, range(4), -1)
    return words


def test_a_late_update_has_a_mask_of_its_own(monkeypatch):
    change = changes_of(1, NUM_PARAMS)[0]
    assert uniformity(late_and_bare(change)) > CHANCE
    monkeypatch.setattr(member_module, "add_self_mask", lambda words, seed: None)
    assert (late_and_bare(change) == FixedPoint(4.0, 5).encode(change)).all(), "the control"


def reveals(talk: Talk, place: int) -> dict[int, bytes]:
    heard = talk.heard[Stage.REVEAL]
    return {holder: answer["shares"][place].tobytes() for holder, answer in heard.items()}


def test_of_nobody_both_seeds_are_told():
    talk = Talk(changes_of(7, 30), {Stage.SHARE: (0,), Stage.MASK: (1, 2)}, threshold=4)
    seeds = [(member.mask_seed, member.self_seed) for member in talk.members]
    talk.run()
    for place, (mask_seed, self_seed) in enumerate(seeds):
        told = joined(dict(list(reveals(talk, place).items())[:4]))
        assert (told == mask_seed) == (place in (1, 2))
        assert (told == self_seed) == (place > 2)
    assert not any(map(any, reveals(talk, 0).values())), "of who shared nothing, nothing"


# --- a member refuses what is not safe --------------------------------------------------------


@pytest.fixture
def talked():
    """Three members of five after their masked updates, and the questions that come next."""
    talk = Talk(changes_of(5, 30), threshold=3)
    gathering = talk.gathering
    while gathering.stage is not Stage.REVEAL:
        for place, member in enumerate(talk.members):
            gathering.answer(100 + place, member.answer(gathering.question(100 + place)))
        gathering.advance()
    return talk


def refuses(member: Member, question: Question, why: str) -> None:
    with pytest.raises(UnsafeQuestionError, match=why):
        member.answer(question)


def test_a_second_answer_in_a_stage_is_refused(talked):
    question, member = talked.gathering.question(100), talked.members[0]
    member.answer(question)
    others = tuple(place for place in range(5) if place != 4)
    refuses(member, replace(question, members=others), "each comes once")


def test_a_member_that_told_twice_would_have_told_an_update(talked):
    """The control: without that check, a proxy that lies about who vanished sees member 4."""
    question = talked.gathering.question(100)
    told = {True: {}, False: {}}
    for place, member in enumerate(talked.members[:4]):
        for survives, shares in told.items():
            again = Member.of_arrays(member.to_arrays())  # as if it did not remember
            named = tuple(range(5 if survives else 4))
            answer = again.answer(replace(question, members=named))
            shares[place] = answer["shares"][4].tobytes()
    self_seed, mask_seed = (joined(dict(list(told[s].items())[:3])) for s in (True, False))
    assert (self_seed, mask_seed) == (talked.members[4].self_seed, talked.members[4].mask_seed)


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.MASK])
def test_stages_do_not_come_back(talked, stage):
    refuses(talked.members[0], replace(talked.gathering.question(100), stage=stage), "stage")


def test_too_few_survivors_are_refused(talked):
    question = talked.gathering.question(100)
    refuses(talked.members[0], replace(question, members=(0, 1)), "threshold 3 is missed")


def test_survivors_without_this_node_are_refused(talked):
    question = talked.gathering.question(100)
    refuses(talked.members[0], replace(question, members=(1, 2, 3)), "this node is not")


def test_a_place_that_nobody_has_is_refused(talked):
    question = talked.gathering.question(100)
    refuses(talked.members[0], replace(question, members=(0, 1, 2, 5)), "missed")


def share_question(members: list[Member], threshold: int) -> Question:
    keys = np.stack([member.public_keys for member in members])
    return Question(Stage.SHARE, threshold, 4.0, tuple(range(len(members))), {"keys": keys})


def test_members_and_thresholds_that_are_not_safe_are_refused():
    members = [Member(np.zeros(3, np.float32)) for _ in range(4)]
    me = members[0]
    refuses(me, share_question(members[1:], 3), "0 times")
    refuses(me, share_question([me, *members], 4), "2 times")
    refuses(me, share_question([*members, members[1]], 4), "same keys")
    refuses(me, share_question(members, 2), "more than half")
    refuses(me, share_question(members, 5), "threshold 5")
    refuses(me, share_question(members[:2], 2), "at least 3")
    me.answer(share_question(members, 3))


def test_members_who_were_told_of_others_have_no_mask_in_common():
    """A proxy that lies about keys gets words that are random for ever."""
    a, b, c, d = (Member(np.zeros(NUM_PARAMS, np.float32)) for _ in range(4))
    words = np.zeros(NUM_PARAMS, np.uint32)
    for member, group in ((a, [a, b, c]), (b, [a, b, d]), (c, [a, b, c])):
        member.answer(share_question(group, 2))
        place = group.index(member)
        masks = np.zeros_like(words)
        pairs_module.Pairs(member.keys).add_masks(
            masks, member.mask_seed, place, [p for p in range(3) if p != place]
        )
        words += masks
    assert uniformity(words) > CHANCE


def test_two_masks_of_two_keys_have_nothing_in_common():
    first, second = (mask(derived(bytes([k]), b"a mask"), NUM_PARAMS) for k in (1, 2))
    assert uniformity(first - second) > CHANCE
