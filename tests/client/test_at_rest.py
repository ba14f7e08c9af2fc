"""What is neither shared nor private is at rest: no message has it, and every process builds it."""

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fedagent.client import ClientSpec, LocalTraining, build_client_app, train
from fedagent.tasks.task import Task


class Layers(nn.Module):
    """y = head + base + own."""

    def __init__(self):
        super().__init__()
        self.base = nn.Parameter(torch.tensor([2.0]), requires_grad=False)
        self.head = nn.Parameter(torch.tensor([0.0]))
        self.own = nn.Parameter(torch.tensor([0.5]))


class LayersTask(Task):
    """f = (y - 4)^2 / 2."""

    shared = ("hea*", "own")
    private = ("own",)
    num_partitions = 2

    def build_model(self):
        return Layers()

    def num_examples(self, partition_id):
        return 1

    def batches(self, partition_id, batch_size):
        while True:
            yield torch.tensor([4.0])

    def loss(self, model, batch):
        return 0.5 * (model.base + model.head + model.own - batch).square().sum()

    def measure(self, model, device, partition_id):
        return {"accuracy": float(model.base), "num-examples": 1.0}


TRAINING = LocalTraining(learning_rate=0.25, local_steps=1)


def ask(arrays, state, kind="train", app=None):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    app = app or build_client_app(lambda _: ClientSpec(LayersTask(), TRAINING, "cpu"))
    content = RecordDict({"arrays": ArrayRecord(arrays)})
    context = Context(1, 5, {"partition-id": 0}, state, {})
    return app(Message(content, dst_node_id=5, message_type=kind), context).content


def test_names_are_shared_private_or_at_rest():
    shared, others = LayersTask().split_state({"base": 1, "head": 2, "header": 3, "own": 4})
    assert shared == {"head": 2, "header": 3}
    assert others == {"base": 1, "own": 4}  # private, whatever a pattern says
    assert LayersTask().is_private("own")
    assert not LayersTask().is_private("base")


def test_only_what_is_shared_comes_back_and_only_what_is_private_is_kept():
    state = RecordDict()
    reply = ask({"head": torch.tensor([1.0])}, state)
    (arrays,) = reply.array_records.values()
    assert {name: array.numpy().item() for name, array in arrays.items()} == {
        "head": pytest.approx(1.0 + 0.25 * 0.5)  # the base was there: 2 + 1 + 0.5 to 4
    }
    (kept,) = state.array_records.values()
    assert set(kept) == {"own"}


def test_what_is_at_rest_is_what_was_built_whatever_a_server_sends():
    sent = {"head": torch.tensor([1.0]), "base": torch.tensor([100.0])}
    (metrics,) = ask(sent, RecordDict(), "evaluate").metric_records.values()
    assert metrics["accuracy"] == 2.0


class Normalised(nn.Module):
    """head * norm(x) / scale: nobody has frozen what is at rest."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.head = nn.Parameter(torch.tensor([0.0]))

    def forward(self, x):
        return self.head * self.norm(x) / self.scale


class NormalisedTask(LayersTask):
    """f = (y - 4)^2 / 2."""

    shared = ("head",)
    private = ()

    def build_model(self):
        return Normalised()

    def batches(self, partition_id, batch_size):
        while True:
            yield torch.tensor([[3.0], [9.0]])

    def loss(self, model, batch):
        return 0.5 * (model(batch) - 4.0).square().sum()

    def measure(self, model, device, partition_id):
        return {"accuracy": float(model(torch.ones(1, 1))), "num-examples": 1.0}


def test_no_job_changes_what_is_at_rest_for_the_next_one():
    app = build_client_app(lambda _: ClientSpec(NormalisedTask(), TRAINING, "cpu"))
    sent = {"head": torch.tensor([1.0])}
    kinds = "evaluate", "train", "evaluate", "train"
    before, trained, after, again = (ask(sent, RecordDict(), kind, app) for kind in kinds)
    assert after["metrics"]["accuracy"] == before["metrics"]["accuracy"]
    heads = [reply["arrays"]["head"].numpy().item() for reply in (trained, again)]
    assert heads[0] == heads[1] != 1.0


def test_what_is_at_rest_under_one_name_and_shared_under_another_is_trained():
    class Tied(Normalised):
        def __init__(self):
            super().__init__()
            self.scale = self.head

        def forward(self, x):
            return self.head * x

    class TiedTask(NormalisedTask):
        def build_model(self):
            return Tied()

    task = TiedTask()
    model = task.build_model()
    train(task, model, task.batches(0, 2), TRAINING, torch.device("cpu"))
    assert model.head.item() != 0.0
    assert model.norm.weight.requires_grad  # as it was
