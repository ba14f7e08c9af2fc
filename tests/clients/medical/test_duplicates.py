import numpy as np
import pytest

from clients.medical.duplicates import groups_of
from fedagent.errors import ConfigurationError


def thumbnails(*rows):
    """16x16 images whose centred pixels are combinations of two orthogonal patterns.

    Neither is the other one, or its own negative, mirrored or turned.
    """
    order = np.random.default_rng(0).permutation(256)
    a, b = np.ones(256), np.ones(256)
    a[order[:128]] = b[order[64:192]] = -1.0
    a, b = a.reshape(16, 16), b.reshape(16, 16)
    return np.stack([128 + x * a + y * b for x, y in rows]).astype(np.uint8)


def test_images_are_joined_above_the_correlation_and_not_below():
    # The cosine of the angle between (100, 0) and (100, y) is 1 / sqrt(1 + (y / 100)^2).
    images = thumbnails((100, 0), (100, 14), (100, 15), (0, 100))
    assert np.corrcoef(images.reshape(4, -1))[0, 1:3] == pytest.approx([0.9903, 0.9890], abs=1e-4)
    assert groups_of(images[[0, 1, 3]]).tolist() == [0, 0, 1]
    assert groups_of(images[[0, 2, 3]]).tolist() == [0, 1, 2]


def test_a_chain_of_near_duplicates_is_one_group():
    images = thumbnails((80, 0), (0, 80), (80, 22), (80, 11))
    assert groups_of(images).tolist() == [0, 1, 0, 0]


def test_brightness_and_contrast_do_not_tell_images_apart():
    images = thumbnails((100, 0), (30, 0), (-100, 0))
    images[1] -= 60
    assert groups_of(images).tolist() == [0, 0, 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_a_mirrored_or_turned_copy_of_another_contrast_is_a_near_duplicate(mirrored, quarters):
    rng = np.random.default_rng(1)
    original, other = rng.integers(0, 200, (2, 16, 16)).astype(np.uint8)
    copy = np.rot90(original[:, ::-1] if mirrored else original, quarters) // 2 + 30
    assert groups_of(np.stack([other, copy, original])).tolist() == [0, 1, 1]


def test_larger_images_are_compared_by_means_of_blocks():
    small = thumbnails((100, 0), (0, 100))
    large = small.repeat(4, axis=1).repeat(4, axis=2).astype(np.int64)
    large[0, ::2] += 20
    large[0, 1::2] -= 20  # gone in the mean of a block
    images = np.concatenate([large, small.repeat(4, axis=1).repeat(4, axis=2)])
    assert groups_of(images.astype(np.uint8)).tolist() == [0, 1, 0, 1]


def test_constant_images_are_nobodys_duplicates():
    assert groups_of(np.full((2, 16, 16), 7, np.uint8)).tolist() == [0, 1]


def test_a_size_without_thumbnails_is_refused():
    with pytest.raises(ConfigurationError, match="40x40"):
        groups_of(np.zeros((2, 40, 40), np.uint8))
