"""What is a node's own stays there: in its Context, in no message."""

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fedagent import FedBuff
from fedagent.client import ClientSpec, LocalTraining, PrivateTraining, build_client_app
from fedagent.errors import ConfigurationError
from fedagent.simulation import Runtime, Scripted, run_simulation
from fedagent.simulation.workers.work import WorkItem, run_clients
from fedagent.tasks.task import Task


class Pair(nn.Module):
    """A number that all share and one that is a node's own."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Parameter(torch.tensor([0.0]))
        self.own = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.own.weight, 0.5)
        self.owner = nn.Parameter(torch.tensor([0.0]))  # not "own": only whole names count


class PairTask(Task):
    """f = (shared + own - (k + 1))^2 / 2: with step 1/2 each goes half of the way."""

    private = ("own",)
    num_partitions = 100

    def __init__(self, noise=0.0):
        self.noise = noise

    def build_model(self):
        model = Pair()
        nn.init.constant_(model.own.weight, 0.5 + self.noise * float(torch.rand(())))
        return model

    def num_examples(self, partition_id):
        return 1

    def batches(self, partition_id, batch_size):
        while True:
            yield torch.tensor([partition_id + 1.0])

    def loss(self, model, batch):
        return 0.5 * (model.shared + model.own.weight[0] + 0 * model.owner - batch).square().sum()

    def measure(self, model, device, partition_id):
        return {"accuracy": float(model.own.weight.detach()), "num-examples": 1.0}


class Node:
    """A node that lives on between messages."""

    def __init__(self, app: ClientApp, partition_id: int):
        self.app, self.partition_id, self.state = app, partition_id, RecordDict()

    def ask(self, shared: float, kind: str = "train", **arrays: torch.Tensor) -> RecordDict:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        dispatched = {"shared": torch.tensor([shared]), "owner": torch.zeros(1), **arrays}
        content = RecordDict({"arrays": ArrayRecord(dispatched)})
        context = Context(1, 5, {"partition-id": self.partition_id}, self.state, {})
        return self.app(Message(content, dst_node_id=5, message_type=kind), context).content

    @property
    def own(self) -> float:
        return self.state.array_records["fedagent-private"]["own.weight"].numpy().item()


def app_of(private=None, task=None, steps=1):
    training = LocalTraining(learning_rate=0.5, local_steps=steps, private=private)
    return build_client_app(lambda _: ClientSpec(task or PairTask(), training, "cpu"))


def test_a_reply_holds_the_shared_part_only():
    reply = Node(app_of(), 0).ask(0.0)
    assert set(reply.array_records["arrays"]) == {"shared", "owner"}
    assert set(reply.metric_records["metrics"]) == {"train-loss", "local-steps", "num-examples"}


def test_the_private_part_is_where_the_last_job_left_it():
    node = Node(app_of(), 0)
    node.ask(0.0)  # residual 0.5 - 1: both move by 0.25
    assert node.own == 0.75
    reply = node.ask(0.0)  # from 0.75, residual -0.25
    assert node.own == 0.875
    assert reply.array_records["arrays"]["shared"].numpy() == 0.125


def test_nodes_that_one_process_works_for_do_not_see_each_others_part():
    app = app_of()
    first, second = Node(app, 0), Node(app, 9)
    second.ask(0.0)
    first.ask(0.0)
    assert first.own == 0.75
    assert second.own == 0.5 + 0.5 * (10 - 0.5)


def test_a_private_array_that_is_dispatched_changes_nothing():
    node = Node(app_of(), 0)
    node.ask(0.0, **{"own.weight": torch.tensor([[100.0]])})
    assert node.own == 0.75


def test_evaluation_uses_the_nodes_own_part_and_leaves_it_as_it_is():
    node = Node(app_of(), 0)
    assert node.ask(0.0, "evaluate").metric_records["metrics"]["accuracy"] == 0.5
    node.ask(0.0)
    assert node.ask(0.0, "evaluate").metric_records["metrics"]["accuracy"] == 0.75
    assert node.own == 0.75


def test_fitted_first_the_private_part_moves_alone_and_then_stands_still():
    node = Node(app_of(PrivateTraining(steps=200, learning_rate=0.05), steps=3), 0)
    reply = node.ask(0.4)
    assert node.own == pytest.approx(0.6, abs=1e-3)  # 0.4 + own = 1, all of it by `own`
    assert reply.array_records["arrays"]["shared"].numpy() == pytest.approx(0.4, abs=1e-3)


def test_evaluation_fits_first_too():
    node = Node(app_of(PrivateTraining(steps=200, learning_rate=0.05)), 0)
    accuracy = node.ask(0.4, "evaluate").metric_records["metrics"]["accuracy"]
    assert accuracy == pytest.approx(0.6, abs=1e-3)
    assert not node.state


def seen_by(optimizer, **training):
    """Return what a model's private part is fitted with, and what its shared part is."""
    built = []

    class Seen(LocalTraining):
        def build_optimizer(self, parameters):
            optimizer = super().build_optimizer(parameters)
            built.append((self, type(optimizer).__name__))
            return optimizer

    private = PrivateTraining(steps=3, learning_rate=0.125, optimizer=optimizer)
    spec = ClientSpec(PairTask(), Seen(local_steps=2, private=private, **training), "cpu")
    app = build_client_app(lambda _: spec)
    built.clear()
    Node(app, 0).ask(0.0)
    return built[-2:]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("precision", "bfloat16"), ("weight_decay", 0.25), ("max_grad_norm", 0.5), ("momentum", 0.5)],
)
def test_the_private_part_is_fitted_as_the_client_is_told_to_train(setting, value):
    (fit, optimizer), (train, _) = seen_by("sgd", **{setting: value})
    assert (fit.local_steps, fit.learning_rate, optimizer) == (3, 0.125, "SGD")
    assert getattr(fit, setting) == getattr(train, setting) == value


def test_adam_has_a_momentum_of_its_own_and_nothing_pulls_a_private_part():
    (fit, optimizer), (train, _) = seen_by("adam", momentum=0.5, proximal_mu=0.5)
    assert (optimizer, fit.momentum, fit.proximal_mu) == ("Adam", 0.0, 0.0)
    assert (train.momentum, train.proximal_mu) == (0.5, 0.5)


def test_momentum_carries_the_private_part_further():
    def own(momentum):
        private = PrivateTraining(steps=2, learning_rate=0.5, optimizer="sgd")
        training = LocalTraining(local_steps=1, momentum=momentum, private=private)
        node = Node(build_client_app(lambda _: ClientSpec(PairTask(), training, "cpu")), 0)
        node.ask(0.0)
        return node.own

    assert own(0.0) == 0.875  # from 0.5, half of the way to 1, twice
    assert own(0.5) == 1.0  # 0.25, then 0.125 and half of the 0.25


def test_afterwards_everything_can_be_trained_again():
    app = app_of(PrivateTraining(steps=1))
    Node(app, 0).ask(0.0)
    node = Node(app, 0)
    reply = node.ask(0.0)
    assert node.own != 0.5
    assert reply.array_records["arrays"]["shared"].numpy() != 0.0


def test_nodes_with_a_private_part_are_trained_one_by_one():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    zeros = {"shared": torch.zeros(1), "owner": torch.zeros(1)}
    items = [
        WorkItem(
            Message(
                RecordDict({"arrays": ArrayRecord(zeros)}),
                dst_node_id=5 + k,
                message_type="train",
            ),
            1, 5 + k, {"partition-id": k}, {}, RecordDict(), k,
        )
        for k in range(2)
    ]  # fmt: skip
    answers = run_clients(app_of(), items)
    assert [set(a.content.array_records["arrays"]) for a in answers] == [{"shared", "owner"}] * 2
    assert all("fedagent-private" in a.state for a in answers)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("learning_rate", float("nan")), ("optimizer", "sgdd")]
)
def test_private_training_that_cannot_work_is_refused(field, value):
    with pytest.raises(ConfigurationError, match=field):
        PrivateTraining(**{field: value})


def test_the_number_of_workers_does_not_show():
    def final(workers: int) -> bytes:
        server, outcome = ServerApp(), {}

        @server.main()
        def _main(grid, context):
            strategy = FedBuff(buffer_size=2, concurrency=3, fraction_evaluate=0.0)
            arrays = ArrayRecord({"shared": torch.zeros(1), "owner": torch.zeros(1)})
            outcome["result"] = strategy.start(grid, arrays, num_rounds=8)

        run_simulation(
            server,
            app_of(task=PairTask(noise=1.0)),
            fleet=Scripted(num_nodes=4, times=(1.0, 1.3, 2.9, 7.1)),
            seed=3,
            runtime=Runtime(workers),
        )
        return outcome["result"].arrays["shared"].data

    assert final(0) == final(2)
