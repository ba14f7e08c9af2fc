import numpy as np
import pytest

from clients.medical.duplicates import groups_of
from fedagent.errors import ConfigurationError


def thumbnails(*rows):
    """16x16 images whose centred pixels are combinations of two orthogonal patterns."""
    left = np.where(np.arange(16) < 8, 1.0, -1.0)
    a, b = np.broadcast_to(left, (16, 16)), np.broadcast_to(left[:, None], (16, 16))
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
