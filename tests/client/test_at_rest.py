"""What is neither shared nor private is at rest: no message has it, and every process builds it."""

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fedagent.client import ClientSpec, LocalTraining, build_client_app
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


def ask(arrays, state, kind="train"):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    training = LocalTraining(learning_rate=0.25, local_steps=1)
    app = build_client_app(lambda _: ClientSpec(LayersTask(), training, "cpu"))
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
