"""Model, what it is trained to say, and what is read from what it says."""

import pytest
import torch
from torch import nn

from clients.detection.baseline import otsu
from clients.detection.boxes import NOTHING, Batch, Example
from clients.detection.finding import Found, find, objects
from clients.detection.metrics import f1, scores
from clients.detection.model import STRIDE, Detector
from clients.detection.training import RADIUS, assigned, loss
from tests.clients.detection.made_up import disc

CPU = torch.device("cpu")


def example(boxes, labels=None, size=64):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes)) if labels is None else torch.tensor(labels)
    return Example(torch.zeros(1, size, size), boxes, labels.long())


def found(boxes, confidences, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes)) if labels is None else torch.tensor(labels)
    return Found(boxes, labels.long(), torch.tensor(confidences, dtype=torch.float32))


# --- model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 83)])
def test_pictures_of_any_size_are_covered_by_cells(height, width):
    logits, boxes, points = Detector(3, 2, width=8)(torch.randn(2, 3, height, width))
    assert logits.shape == (2, len(points), 2)
    assert boxes.shape == (2, len(points), 4)
    assert points[0].tolist() == [STRIDE / 2, STRIDE / 2]
    assert (points.amax(0) >= torch.tensor([width, height]) - STRIDE).all()


def test_a_fresh_model_sees_nothing_and_its_boxes_lie_around_their_points():
    logits, boxes, points = Detector(1, 10)(torch.rand(1, 1, 32, 32))
    assert logits.sigmoid().max() < 0.05
    assert (boxes[0, :, :2] < points).all()
    assert (boxes[0, :, 2:] > points).all()


def test_a_picture_alone_is_seen_as_in_a_batch():
    model, images = Detector(1, 3, width=8).eval(), torch.rand(3, 1, 32, 32)
    together, alone = model(images)[0][1], model(images[1:2])[0][0]
    assert torch.allclose(together, alone, atol=1e-5)


# --- training -------------------------------------------------------------------------------------


def test_cells_near_a_middle_belong_to_the_smallest_box_there():
    batch = Batch.of([example([(8, 8, 40, 40), (22, 22, 30, 30), (50, 50, 52, 51)])])
    *_, points = Detector(1, 1, width=8)(batch.images)
    owner, is_object = (tensor[0] for tensor in assigned(points, batch))
    for box, (x, y) in enumerate([(24, 24), (26, 26), (51, 50.5)]):
        distance = (points - torch.tensor([x, y])).abs().amax(1)
        own = is_object & (owner == box)
        assert own.any(), "even the tiniest has a cell"
        assert (distance[own] <= RADIUS).all()
    assert owner[points.tolist().index([26.0, 26.0])] == 1
    assert is_object.sum() < 20


def test_a_picture_without_objects_teaches_that_there_are_none():
    batch = Batch.of([example([]), example([])])
    assert (batch.labels == NOTHING).all()
    logits, boxes, points = Detector(1, 2, width=8)(batch.images)
    assert not assigned(points, batch)[1].any()
    quiet = loss(logits - 5, boxes, points, batch)
    assert quiet < loss(logits, boxes, points, batch) < loss(logits + 5, boxes, points, batch)


def test_the_loss_falls_to_nothing_where_classes_and_boxes_are_right():
    batch = Batch.of([example([(8, 8, 40, 40), (44, 44, 60, 56)], [1, 0])])
    *_, points = Detector(1, 2, width=8)(batch.images)
    owner, is_object = assigned(points, batch)
    logits = torch.full((1, len(points), 2), -12.0)
    logits[is_object, batch.labels[0][owner[is_object]]] = 12.0
    boxes = batch.boxes[0][owner]
    assert loss(logits, boxes, points, batch) < 1e-3
    assert loss(logits.flip(2), boxes, points, batch) > 1
    assert loss(logits, boxes + 4, points, batch) > 0.1


def test_what_speaks_against_a_class_weighs_as_much_as_the_batch_says():
    batch = Batch.of([example([(8, 8, 40, 40)], [0])])
    logits, boxes, points = Detector(1, 2, width=8)(batch.images)
    logits = logits.detach().requires_grad_()
    slopes = []
    for weights in ([1.0, 1.0], [1.0, 0.0], [1.0, 3.0]):
        weighted = batch._replace(negatives=torch.tensor(weights))
        (slope,) = torch.autograd.grad(
            loss(logits, boxes, points, weighted), logits, retain_graph=True
        )
        slopes.append(slope)
    assert (slopes[1][..., 1] == 0).all()
    assert torch.allclose(slopes[2][..., 1], 3 * slopes[0][..., 1])
    assert all(torch.equal(slope[..., 0], slopes[0][..., 0]) for slope in slopes)


def test_a_few_steps_learn_one_scene_by_heart():
    torch.manual_seed(0)
    picture, box = disc(64, 64, False, (30, 34), 9)
    image = torch.from_numpy(picture).permute(2, 0, 1)[:1].float() / 255
    whole = Example(image, torch.tensor([box]).float(), torch.zeros(1).long())
    model, batch = Detector(1, 1, width=8), Batch.of([whole])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss(*model(batch.images), batch).backward()
        optimizer.step()
    with torch.no_grad():
        pairs = list(find(model.eval(), [whole], CPU))
    assert f1(pairs) == 1.0


# --- finding --------------------------------------------------------------------------------------


def test_boxes_that_share_much_are_one_object_unless_their_classes_differ():
    boxes = torch.tensor([[0.0, 0, 20, 20], [1, 1, 20, 20], [40, 40, 90, 60]])
    said = torch.tensor([[0.9, 0.0], [0.8, 0.6], [0.0, 0.3]])
    best = objects(said, boxes, (64, 64))
    assert torch.allclose(best.scores, torch.tensor([0.9, 0.6, 0.3]))
    assert best.labels.tolist() == [0, 1, 1]
    assert best.boxes[2].tolist() == [40, 40, 64, 60], "inside of the picture"
    assert len(objects(torch.zeros(3, 2), boxes, (64, 64)).boxes) == 0


def test_pictures_of_several_sizes_keep_their_order():
    class Tall(nn.Module):
        def forward(self, images):
            boxes = torch.tensor([[0.0, 0, 8, images.shape[2]]]).expand(len(images), 1, 4)
            return torch.full((len(images), 1, 1), 3.0), boxes, torch.zeros(1, 2)

    sizes = [32, 32, 64, 32]
    pairs = list(find(Tall(), [example([], size=size) for size in sizes], CPU))
    assert [int(one.boxes[0, 3]) for _, one in pairs] == sizes
    assert [e.image.shape[1] for e, _ in pairs] == sizes


# --- metrics --------------------------------------------------------------------------------------


def test_average_precision_by_hand():
    truth = example([(0, 0, 10, 10), (20, 20, 40, 40)], [0, 1])
    right = found([(0, 0, 10, 10), (20, 20, 40, 40)], [0.9, 0.8], [0, 1])
    names = ("a", "b")
    assert scores([(truth, right)], names, per_class=True) == pytest.approx(
        {"map50": 1.0, "map": 1.0, "num-examples": 1.0, "map50-a": 1.0, "map50-b": 1.0}
    )
    # IoU of class 1's box: 300 / 400 = .75, which passes 6 of the 10 thresholds.
    loose = found([(0, 0, 10, 10), (20, 20, 40, 35)], [0.9, 0.8], [0, 1])
    of_loose = scores([(truth, loose)], names)
    assert (of_loose["map50"], of_loose["map"]) == pytest.approx((1.0, 0.8))
    missed = scores([(truth, found([(0, 0, 10, 10)], [0.9]))], names, per_class=True)
    assert (missed["map50"], missed["map50-b"]) == pytest.approx((0.5, 0.0))


def test_a_class_that_is_nowhere_counts_neither_way():
    truth = example([(0, 0, 10, 10)], [1])
    right = found([(0, 0, 10, 10), (30, 30, 40, 40)], [0.9, 0.3], [1, 0])
    of_all = scores([(truth, right)], ("a", "b", "c"), per_class=True)
    assert of_all["map50"] == pytest.approx(1.0)
    assert {"map50-b"} == {name for name in of_all if name.startswith("map50-")}
    nothing = scores([(example([]), found([], []))], ("a", "b"))
    assert (nothing["map50"], nothing["map"]) == (0.0, 0.0)


def test_more_than_a_hundred_objects_in_a_picture_all_count():
    boxes = [(6 * x, 6 * y, 6 * x + 5, 6 * y + 5) for x in range(20) for y in range(10)]
    pair = example(boxes, size=128), found(boxes, [0.9] * len(boxes))
    assert scores([pair], ("a",))["map50"] == pytest.approx(1.0)


def test_f1_by_hand():
    truth = example([(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50)])
    # One hit, one that hits the same box again, one beside everything, one that nobody is sure of.
    said = found(
        [(0, 0, 10, 9), (0, 0, 10, 10), (55, 0, 60, 5), (40, 40, 50, 50)], [0.9, 0.8, 0.7, 0.1]
    )
    assert f1([(truth, said)]) == pytest.approx(2 * 1 / (3 + 3))
    assert f1([(truth, said), (example([]), found([], []))]) == pytest.approx(2 / 6)
    assert f1([(truth, found([], []))]) == 0.0


# --- Otsu -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_bright", [True, False])
def test_otsu_finds_a_disc_whether_it_is_darker_or_brighter(is_bright):
    picture, box = disc(64, 48, is_bright, (30, 20), 8)
    image = torch.from_numpy(picture).permute(2, 0, 1).float()
    image[:, 40, 50] = 255.0 - image[:, 40, 50]  # dust
    best = otsu(Example(image, torch.zeros(0, 4), torch.zeros(0).long()))
    assert best.boxes.tolist() == [list(map(float, box))]
