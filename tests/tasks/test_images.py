import numpy as np
import torch

from fedagent.tasks.images import Images


def test_colour_images_become_channels_first():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[..., 2] = 255
    images, _ = Images.of(pixels, np.array([0, 1])).batch(slice(None))
    assert images.shape == (2, 3, 4, 4)
    assert images.mean((0, 2, 3)).tolist() == [0.0, 0.0, 1.0]


def grey(count, size=4):
    pixels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((size, size), np.uint8)
    return Images.of(pixels, np.arange(count) % 7)


def test_images_know_their_shape_and_their_classes():
    images = grey(20)
    assert (len(images), images.channels, images.size, images.num_classes) == (20, 1, 4, 7)


def test_selected_images_keep_their_labels():
    chosen = grey(20).select(torch.tensor([19, 3]))
    assert chosen.pixels[:, 0, 0, 0].tolist() == [19, 3]
    assert chosen.labels.tolist() == [5, 3]


def test_inputs_are_all_images_in_order_a_few_at_a_time():
    images = grey(250)
    batches = list(images.inputs())
    assert len(batches) > 1
    assert torch.equal(torch.cat(batches), images.batch(slice(None))[0])
