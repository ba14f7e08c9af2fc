"""Nodes that lie: who, and with what."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.vision import VisionTask
from fedagent import AsyncStrategy
from fedagent.client import ClientSpec
from fedagent.client.attacks import (
    Attackers,
    FreeRider,
    InflatedClaim,
    InnerProduct,
    LabelFlip,
    LittleIsEnough,
    MetricsFlood,
    Noise,
    Scaling,
    SignFlip,
    StaleLie,
)
from fedagent.errors import ConfigurationError
from fedagent.rules import FedBuff
from fedagent.simulation import Equal, Scripted
from fedagent.wire.records import from_record, to_record
from tests import toy

ALL = Attackers(num_nodes=3, fraction=1.0)
NOBODY = Attackers(num_nodes=3, fraction=0.0)


def answer(attack, start=0.0, partition=0, state=None, kind="train"):
    """What a node sends whose honest step is 1 + its partition, of one float and one integer."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 5, 1
    model = {"w": np.full(4, start, np.float32), "n": np.array(7)}
    content = RecordDict({"arrays": to_record(model), "config": ConfigRecord({"lr": 1.0})})

    def train(message: Message, context: Context) -> Message:
        sent = from_record(message.content["arrays"])
        message.content["arrays"].clear()  # as to_torch_state_dict(keep_input=False)
        step = np.float32(1 + context.node_config["partition-id"])
        arrays = to_record({"w": sent["w"] + step, "n": sent["n"] + 1})
        metrics = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    context = Context(
        1, 5, {"partition-id": partition}, RecordDict() if state is None else state, {}
    )
    reply = attack(Message(content, dst_node_id=5, message_type=kind), context, train)
    arrays = from_record(reply.content.array_records["arrays"])
    assert arrays["n"] == 8, "what is counted is left alone"
    assert arrays["w"].dtype == np.float32
    return arrays["w"], dict(reply.content.metric_records["metrics"])


@pytest.mark.parametrize(
    ("attack", "step"),
    [
        (SignFlip(ALL, scale=10.0), -10.0),
        (Scaling(ALL, scale=5.0), 5.0),
        (InnerProduct(ALL, eps=0.5, colluders=3), -0.5 * 2.0),  # honest steps are 1, 2 and 3
        (LittleIsEnough(ALL, z=1.5, colluders=3), 2.0 - 1.5 * (2 / 3) ** 0.5),
        (LittleIsEnough(ALL, z=1.0, colluders=2), 1.5 - 0.5),  # the next in the ring: 1 and 2
        (InflatedClaim(ALL), -1.0),
        (FreeRider(ALL, scale=0.0), 0.0),
    ],
)
def test_a_lie_is_the_step_that_its_formula_says(attack, step):
    sent, _ = answer(attack, start=2.0)
    assert sent == pytest.approx(np.full(4, 2.0 + step), rel=1e-5)


@pytest.mark.parametrize("attack", [SignFlip(ALL), Noise(ALL), InnerProduct(ALL)])
def test_a_lie_leaves_infinities_of_a_mask_what_they_are(attack):
    assert answer(attack, start=-np.inf)[0].tolist() == [-np.inf] * 4


def test_noise_is_about_as_long_as_it_is_to_be_and_the_same_for_a_seed():
    lengths = []
    for seed in range(40):
        torch.manual_seed(seed)
        lengths.append(np.linalg.norm(answer(Noise(ALL, scale=10.0))[0]))
    assert np.mean(lengths) == pytest.approx(10 * 2.0, rel=0.25)  # an honest step is 2 long
    torch.manual_seed(0)
    assert np.linalg.norm(answer(Noise(ALL, scale=10.0))[0]) == lengths[0]


def test_a_claim_and_a_flood_are_in_the_metrics():
    assert answer(InflatedClaim(ALL, factor=7.0))[1] == {"num-examples": 70}
    assert len(answer(MetricsFlood(ALL, count=9))[1]["flood"]) == 9


def test_a_stale_lie_trains_the_model_of_an_earlier_job():
    attack, state = StaleLie(ALL, refresh_every=2), RecordDict()
    assert [answer(attack, x, state=state)[0][0] for x in (1.0, 5.0, 7.0)] == [2.0, 2.0, 8.0]


def test_only_attackers_lie_and_only_when_they_train():
    assert answer(SignFlip(NOBODY))[0][0] == 1.0
    assert answer(SignFlip(ALL), kind="evaluate")[0][0] == 1.0


def test_attackers_are_a_share_of_the_nodes_by_seed_or_by_speed():
    fleet = Scripted(num_nodes=5, times=[3.0, 1.0, 2.0, 9.0, 5.0])
    by = {"num_nodes": 5, "fraction": 0.4, "fleet": fleet}
    assert Attackers(**by, who="fastest").partitions == {1, 2}
    assert Attackers(**by, who="slowest").partitions == {3, 4}
    assert Attackers(num_nodes=5, nodes=[4]).partitions == {4}
    drawn = [Attackers(num_nodes=1000, seed=seed).partitions for seed in (1, 1, 2)]
    assert len(drawn[0]) == 200
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"who": "fastest"}, "pass fleet"),
        ({"nodes": [3]}, "no partition"),
        ({"fraction": 2}, "lie in"),
    ],
)
def test_attackers_that_nobody_can_choose_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        Attackers(num_nodes=3, **settings)


def test_flipped_labels_are_those_of_attackers_and_the_task_stays_as_it_is():
    task = VisionTask(model="linear", num_partitions=3)
    liars = Attackers(num_nodes=3, nodes=[1])
    lying = LabelFlip(liars).on(ClientSpec(task)).task
    labels = []
    for each, node in ((task, 1), (lying, 1), (task, 0), (lying, 0)):
        torch.manual_seed(1)
        labels.append(next(each.batches(node, 8))[1])
    assert labels[1].tolist() == (9 - labels[0]).tolist()
    assert labels[3].tolist() == labels[2].tolist()


def test_a_task_without_labels_is_told_so():
    flip = LabelFlip(ALL)
    with pytest.raises(ConfigurationError, match="no label to flip"):
        flip._flip((torch.zeros(2), torch.zeros(2)))


def test_a_fifth_of_the_nodes_ruins_a_plain_mean_and_the_same_bytes_come_again():
    finals = []
    for attackers in (Attackers(num_nodes=5, nodes=[0]), Attackers(num_nodes=5, nodes=[])) * 2:
        app = toy.client_app(mods=[SignFlip(attackers, scale=10.0)])
        strategy = AsyncStrategy(FedBuff(5), fraction_evaluate=0.0)
        run = toy.run(strategy, Equal(num_nodes=5), rounds=20, client=app)
        finals.append(run.result.arrays["weight"].numpy()[0])
    errors = [float(np.linalg.norm(w - toy.TRUE_WEIGHTS.numpy())) for w in finals]
    assert errors[1] < 0.5
    assert errors[0] > 2.0
    assert (finals[0] == finals[2]).all()
