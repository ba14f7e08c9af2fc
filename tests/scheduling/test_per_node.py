"""Settings by device class: what is set is its class's, what is not is everybody's."""

import pytest

from fedagent.nodes.geography import ByMeasure, Listed
from fedagent.scheduling import NodeSettings, PerNode
from fedagent.scheduling.base import Assignment

JOB = Assignment(7, local_steps=10, learning_rate=0.1, batch_size=32)


@pytest.mark.parametrize(
    ("own", "adapted"),
    [
        (NodeSettings(), JOB),
        (NodeSettings(local_steps=2), Assignment(7, 2, 0.1, 32)),
        (NodeSettings(learning_rate=0.5), Assignment(7, 10, 0.5, 32)),
        (NodeSettings(batch_size=4), Assignment(7, 10, 0.1, 4)),
        (NodeSettings(2, 0.5, 4, prefetch=3), Assignment(7, 2, 0.5, 4)),
    ],
)
def test_a_job_gets_what_its_class_sets_and_keeps_the_rest(own, adapted):
    classes = PerNode(Listed([[0], [1]]), [NodeSettings(99, 9.9, 99), own])
    assert classes.adapt(JOB, {"partition-id": 1}) == adapted


def test_a_job_without_settings_gets_those_of_its_class():
    classes = PerNode(Listed([[0]]), [NodeSettings(2, 0.5, 4)])
    assert classes.adapt(Assignment(7), {"partition-id": 0}) == Assignment(7, 2, 0.5, 4)


def test_a_node_of_no_class_keeps_what_everybody_has():
    classes = PerNode(Listed([[0], [1]]), [NodeSettings(2), NodeSettings(3)])
    assert classes.of(7, {"partition-id": 5}) == NodeSettings()
    assert classes.adapt(JOB, {"partition-id": 5}) == JOB


def test_classes_go_by_a_measure():
    classes = PerNode(
        ByMeasure([2.0], key="seconds-per-step"), [NodeSettings(50), NodeSettings(5, prefetch=0)]
    )
    assert classes.of(1, {"seconds-per-step": 0.5}).local_steps == 50
    assert classes.of(1, {"seconds-per-step": 9.0}) == NodeSettings(5, prefetch=0)
