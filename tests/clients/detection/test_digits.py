from itertools import islice

import pytest
import torch

from clients.detection.boxes import NOTHING
from clients.detection.digits import INK, MOST, SHARED, Composer
from clients.vision.data import load


@pytest.fixture(scope="module")
def composer():
    return Composer(load().train, 64)


def intersection(a, b):
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    return float((high - low).clamp(min=0).prod())


def test_ink_fills_the_box_and_nothing_outside_of_it(composer):
    alone = [e for e in composer.scenes(60, seed=3) if len(e.boxes) == 1]
    assert len(alone) > 5
    for image, boxes, _ in alone:
        rows, columns = (image[0] > INK / 255).nonzero().T
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (seen - boxes[0]).abs().max() <= 1.5
        assert 12 <= (boxes[0, 2:] - boxes[0, :2]).max() <= 30


def test_boxes_lie_in_the_scene_and_share_little(composer):
    numbers = set()
    for _, boxes, labels in composer.scenes(150, seed=4):
        numbers.add(len(labels))
        assert boxes.min() >= 0
        assert boxes.max() <= 64
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        for i in range(len(boxes)):
            for k in range(i):
                smaller = min(areas[i], areas[k])
                assert intersection(boxes[i], boxes[k]) <= SHARED * smaller + 1e-3
    assert numbers == set(range(1, MOST + 1))


def test_a_digit_keeps_its_label_and_its_shape(composer):
    digit = composer.images.select(torch.tensor([7]))
    batch = Composer(digit, 64).compose(4)
    assert set(batch.labels.unique().tolist()) <= {NOTHING, int(digit.labels[0])}
    ink = Composer(digit, 64).ink[0]
    wanted = float((ink[2] - ink[0]) / (ink[3] - ink[1]))
    boxes = batch.boxes[batch.labels != NOTHING]
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert torch.allclose(width / height, torch.full_like(width, wanted), rtol=1e-4)


def test_scenes_follow_their_seed_and_batches_the_global_one(composer):
    def same(a, b):
        return all(
            torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
        )

    scenes = [list(composer.scenes(5, seed)) for seed in (1, 1, 2)]
    assert same(scenes[0], scenes[1])
    assert not same([scenes[0][0][:1]], [scenes[2][0][:1]])
    batches = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        batches.append([next(iter([composer.compose(3)]))])
    assert same(batches[0], batches[1])
    assert not torch.equal(batches[0][0].images, batches[2][0].images)
    assert len(list(islice(composer.scenes(250, 1), 300))) == 250
