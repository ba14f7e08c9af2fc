"""Noise has the size that is promised, once for every release, and along a tree less in all."""

import numpy as np
import pytest
import torch

from fedagent.errors import ConfigurationError
from fedagent.privacy import Clipping, Noise

P = 40_000


def releases(noise: Noise, number: int, std: float = 2.0) -> list[np.ndarray]:
    found = []
    for _ in range(number):
        total = torch.zeros(P)
        noise.add_to(total, std)
        found.append(total.numpy())
    return found


def test_fresh_noise_is_normal_and_independent():
    first, second = releases(Noise(1), 2)
    for one in (first, second):
        assert one.std() == pytest.approx(2.0, rel=0.02)
        assert abs(one.mean()) < 0.05
        assert np.mean(np.abs(one) < 2.0) == pytest.approx(0.683, abs=0.01)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_large_and_small_vectors_get_noise_in_every_element():
    total = torch.zeros((1 << 18) + 5)
    Noise(1).add_to(total, 1.0)
    assert (total != 0).all()


@pytest.mark.parametrize("tree", [8, 5])
def test_along_a_tree_all_noise_so_far_is_as_many_draws_as_ones_in_binary(tree):
    so_far = np.zeros(P)
    for number, one in enumerate(releases(Noise(3, tree), 2 * tree), start=1):
        so_far = so_far + one
        full, rest = divmod(number, tree)
        draws = full * tree.bit_count() + rest.bit_count()
        assert np.var(so_far) == pytest.approx(4.0 * draws, rel=0.05), number


def test_a_contribution_is_hidden_by_no_more_draws_than_it_pays_for():
    """Removing one release's contribution changes the sums under so many draws at most."""
    for tree in (1, 2, 3, 7, 8, 100):
        for release in range(1, tree + 1):
            covers = 0  # draws (level, number) whose leaves include the release, made by `tree`
            level = 0
            while (1 << level) <= tree:
                last = -(-release // (1 << level)) * (1 << level)
                covers += last <= tree
                level += 1
            assert covers <= Noise(0, tree).draws_per_contribution


@pytest.mark.parametrize("tree", [None, 4])
def test_a_restored_state_goes_on_with_the_same_noise(tree):
    noise, other = Noise(5, tree), Noise(6, tree)
    releases(noise, 3)
    other.load_state_dict(noise.state_dict())
    assert np.array_equal(releases(noise, 4), releases(other, 4))
    assert noise.number(1.0) == other.number(1.0)


def test_a_tree_without_releases_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1"):
        Noise(1, 0)


# --- clipping -------------------------------------------------------------------------------------


def test_an_update_is_cut_to_the_norm_and_not_lengthened():
    clipping = Clipping(2.0)
    assert [clipping.factor(norm) for norm in (0.0, 1.0, 2.0, 8.0)] == [1.0, 1.0, 1.0, 0.25]
    clipping.follow(4, 100.0)
    assert clipping.norm == 2.0, "a fixed norm stays"


def test_the_norm_finds_the_quantile():
    rng, clipping = np.random.default_rng(0), Clipping(0.01, quantile=0.8)
    for _ in range(300):
        for norm in rng.exponential(1.0, 40):
            clipping.factor(norm)
        clipping.follow(40, rng.normal() * clipping.bits_std(40))
    assert clipping.norm == pytest.approx(np.log(5.0), rel=0.2)  # of exp(1): -ln(1 - .8)


def test_one_node_moves_the_bits_by_no_more_than_a_half():
    """With noise 0 what follows is the shifted sum: a node that sends nothing against one cut."""
    said = []
    for norms in ([0.5, 9.0], [0.5]):
        clipping = Clipping(1.0, quantile=0.5, rate=1.0)
        for norm in norms:
            clipping.factor(norm)
        clipping.follow(10, 0.0)
        said.append(-np.log(clipping.norm) * 10)
    assert abs(said[0] - said[1]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong", [{"norm": 0.0}, {"norm": 1.0, "quantile": 1.0}, {"norm": 1.0, "rate": 0.0}]
)
def test_clipping_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="must"):
        Clipping(**wrong)
