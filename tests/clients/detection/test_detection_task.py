import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from clients.detection import DetectionTask
from clients.detection.alone import main, summary
from clients.detection.boxes import NOTHING
from clients.vision.data import load as load_images
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from fedagent.tasks.partitioning import dirichlet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return DetectionTask(num_test=6, num_partitions=4, partition=dirichlet, width=8)


@pytest.fixture(scope="module")
def of_nuclei(nuclei):
    return DetectionTask(dataset="nuclei", path=str(nuclei), size=48, num_partitions=4, width=8)


@pytest.fixture(scope="module")
def of_voc(voc):
    return DetectionTask(dataset="voc", path=str(voc), size=64, num_partitions=2, width=8)


def test_scenes_of_training_validation_and_test_show_different_digits(digits):
    sides = [set(side.tolist()) for split in digits.splits for side in split]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 4000
    train, test = (
        {row.tobytes() for row in part.pixels.numpy()}
        for part in (digits.data.images, digits.data.held_out)
    )
    assert len(train) == len(load_images().train)
    assert not train & test


def test_a_node_shows_the_digits_that_it_was_dealt(digits):
    mixes = []
    for node in range(4):
        own = digits.data.labels[digits.splits[node].train].unique().tolist()
        seen = torch.cat([b.labels.flatten() for b in islice(digits.batches(node, 32), 4)])
        assert set(seen.tolist()) - {NOTHING} <= set(own)
        mixes.append(digits.data.labels[digits.splits[node].train].bincount(minlength=10))
    shares = torch.stack(mixes) / torch.stack(mixes).sum(1, keepdim=True)
    assert (shares.amax(1) > 0.15).all(), "nodes differ"


def test_a_node_unlearns_a_class_as_seldom_as_it_sees_it(digits):
    everybody = digits.data.labels[digits.splits.training(None)].bincount(minlength=10)
    for node in range(4):
        own = digits.data.labels[digits.splits[node].train].bincount(minlength=10)
        weights = next(digits.batches(node, 2)).negatives
        wanted = (own / own.sum()) / (everybody / everybody.sum())
        assert torch.allclose(weights, wanted, atol=1e-4)
    assert torch.allclose(next(digits.batches(None, 2)).negatives, torch.ones(10))
    plain = replace(digits, balance=False)
    assert next(plain.batches(0, 2)).negatives.tolist() == [1.0]


def test_what_is_examined_is_the_same_every_time(digits):
    for examples in (digits.data.test, lambda: digits.data.examine(digits.splits[1].validation)):
        first, again = list(examples()), list(examples())
        assert len(first) == len(again) > 0
        assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_metrics_are_those_of_each_class(digits):
    found = digits.evaluate(digits.build_model(), CPU)
    assert {f"map50-{digit}" for digit in range(10)} >= {n for n in found if n.startswith("map50-")}
    assert "f1" not in found, "which is for one class"
    assert found["num-examples"] == 6


def test_a_site_is_a_node_and_a_part_of_the_metrics(of_nuclei):
    source = of_nuclei.data
    for node, split in enumerate(of_nuclei.splits):
        assert set(source.labels[torch.cat(split)].tolist()) == {node}
        assert (
            len(split.train) + len(split.validation) + source.test_sites().count(source.sites[node])
            == 6
        )
    assert not set(source.dealt) & set(source.tested)
    found = of_nuclei.evaluate(of_nuclei.build_model(), CPU)
    assert {f"f1-{site}" for site in source.sites} < set(found)
    assert set(of_nuclei.baseline()) == set(found)
    assert of_nuclei.baseline()["f1"] > 0.9, "discs on an even ground are easy"
    with pytest.raises(ConfigurationError, match="5 nodes for 4 sites"):
        DetectionTask(
            dataset="nuclei", path=of_nuclei.path, size=48, num_partitions=5
        ).num_examples(0)


def test_a_crop_shows_its_nucleus_where_its_box_is(of_nuclei):
    torch.manual_seed(0)
    batch = next(of_nuclei.batches(0, 4))
    assert batch.images.shape[2:] == (48, 48)
    hits = 0
    for image, boxes, labels in zip(*batch[:3], strict=True):
        for x0, y0, x1, y1 in boxes[labels != NOTHING].round().long().tolist():
            middle = image[:, (y0 + y1) // 2, (x0 + x1) // 2].mean()
            assert middle > image.mean() + 1
            hits += 1
    assert hits >= 3


def test_voc_keeps_its_test_list_and_reports_its_classes(of_voc):
    assert of_voc.data.tested.tolist() == [9, 10, 11]
    assert sum(len(split.train) + len(split.validation) for split in of_voc.splits) == 9
    found = of_voc.evaluate(of_voc.build_model(), CPU)
    assert {"map50-large", "map50-small"} < set(found)


def test_nodes_learn_discs(of_nuclei):
    torch.manual_seed(0)
    model, batch = of_nuclei.build_model(), next(of_nuclei.batches(None, 8))
    before = float(of_nuclei.loss(model, batch))
    settings = LocalTraining(optimizer="adam", learning_rate=0.003, local_steps=30, batch_size=8)
    train(of_nuclei, model, of_nuclei.batches(None, 8), settings, CPU)
    assert float(of_nuclei.loss(model, batch)) < 0.7 * before, "of crops drawn before"


@pytest.mark.parametrize("name", ["digits", "of_nuclei", "of_voc"])
def test_the_showcase_draws_true_boxes_above_those_found(name, request):
    task = request.getfixturevalue(name)
    with torch.no_grad():
        figure = task.showcase(task.build_model().eval(), CPU).figures["boxes"]
    pictures = len(figure.axes) // 2
    assert pictures >= 3
    truth = sum(len(ax.patches) for ax in figure.axes[:pictures])
    examples = list(islice(task.data.test(), 100))
    assert 0 < truth <= sum(len(example.boxes) for example in examples)
    assert not sum(len(ax.patches) for ax in figure.axes[pictures:]), "a fresh model sees nothing"
    figure.canvas.draw()


def test_settings_that_cannot_work_are_refused():
    for settings, says in (
        ({"dataset": "cars"}, "dataset='cars'"),
        ({"size": 16}, "size=16"),
        ({"width": 12}, "width=12"),
        ({"num_test": 0}, "num_test=0"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
        ({"validation_fraction": 0.0}, "validation_fraction=0.0"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            DetectionTask(**settings)


def test_a_node_alone_knows_only_what_it_has_seen(of_nuclei):
    state = torch.get_rng_state()
    first, again = (of_nuclei.alone(1, steps=2) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)
    assert np.isfinite(first["map50"])


def test_a_site_at_home_is_told_from_the_same_site_away():
    tested = {"a": {"f1-a": 0.9, "f1-b": 0.1, "f1-c": 0.3}, "b": {"f1-a": 0.2, "f1-b": 0.8}}
    rows = summary(tested)
    assert (rows["a"]["home"], rows["a"]["away"]) == (0.9, 0.1), "only sites that trained count"
    assert (rows["b"]["home"], rows["b"]["away"]) == (0.8, 0.2)


def test_every_site_is_trained_in_turn(nuclei, capsys):
    words = f"experiment=detection_nuclei app.path={nuclei} app.size=48 fleet.num_nodes=2"
    main([*words.split(), "--steps=1"])
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2
    assert all({"home", "away"} < set(row) for row in rows.values())
    with pytest.raises(ConfigurationError, match="no sites"):
        main(["app=detection"])
