import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.errors import ConfigurationError
from tests.client.quadratic import QuadraticTask


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def app_of(task, **training):
    return build_client_app(lambda run_config: ClientSpec(task, LocalTraining(**training), "cpu"))


def ask(app, message_type="train", partition_id=0, config=None, arrays=None, run_config=None):
    """Send one message to one node and return the reply."""
    content = RecordDict()
    if message_type != "query":
        content["arrays"] = arrays or ArrayRecord(
            {"y": torch.tensor([4.0, 1.0]), "seen": torch.tensor(5)}
        )
    if config is not None:
        content["config"] = ConfigRecord(config)
    node_config = {} if partition_id is None else {"partition-id": partition_id}
    context = Context(
        run_id=1,
        node_id=5,
        node_config=node_config,
        state=RecordDict(),
        run_config=run_config or {},
    )
    return app(Message(content, dst_node_id=5, message_type=message_type), context)


def y_of(reply):
    return reply.content.array_records["arrays"]["y"].numpy().tolist()


def test_training_starts_from_the_dispatched_arrays_and_returns_the_trained_ones():
    reply = ask(app_of(QuadraticTask(), learning_rate=0.5, local_steps=2), partition_id=0)
    assert y_of(reply) == pytest.approx([1.75, 1.0])
    assert reply.content.array_records["arrays"]["seen"].numpy() == 5 + 2
    metrics = reply.content.metric_records["metrics"]
    assert metrics["num-examples"] == 10
    assert metrics["local-steps"] == 2
    assert metrics["train-loss"] == pytest.approx((4.5 + 1.125) / 2)


def test_a_dispatch_decides_the_batch_size_if_it_says_one():
    class Asked(QuadraticTask):
        sizes = ()

        def batches(self, partition_id, batch_size):
            self.sizes += (batch_size,)
            return super().batches(partition_id, batch_size)

    task = Asked()
    app = app_of(task, batch_size=32)
    ask(app, config={"batch-size": 64})
    ask(app)
    assert task.sizes == (64, 32)
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        ask(app, config={"batch-size": 0})


def test_dispatched_arrays_are_not_mutated():
    tensors = {"y": torch.tensor([4.0, 1.0]), "seen": torch.tensor(5)}
    arrays = ArrayRecord(tensors)
    # A grid that shares memory hands out views of one version: the worst case of a view.
    arrays.to_torch_state_dict = lambda: tensors
    reply = ask(app_of(QuadraticTask(), local_steps=3), arrays=arrays)
    assert y_of(reply) != [4.0, 1.0]
    assert tensors["y"].tolist() == [4.0, 1.0]
    assert tensors["seen"] == 5


def test_replies_do_not_change_when_the_module_works_for_the_next_node():
    app = app_of(QuadraticTask(), local_steps=2)
    first = ask(app, partition_id=0)
    before = y_of(first)
    ask(app, partition_id=7)
    assert y_of(first) == before


def test_nothing_of_one_node_is_left_in_the_module_for_the_next():
    app = app_of(QuadraticTask(), local_steps=2, momentum=0.9)
    alone = y_of(ask(app, partition_id=3))
    ask(app, partition_id=0)
    assert y_of(ask(app, partition_id=3)) == alone


def test_the_dispatch_overrides_local_steps_and_learning_rate():
    app = app_of(QuadraticTask(), learning_rate=0.01, local_steps=8)
    reply = ask(app, config={"local-steps": 1, "learning-rate": 1.0})
    assert y_of(reply) == pytest.approx([1.0, 1.0])
    assert reply.content.metric_records["metrics"]["local-steps"] == 1


def test_overrides_are_checked_like_the_configuration():
    with pytest.raises(ConfigurationError, match="local_steps=0"):
        ask(app_of(QuadraticTask()), config={"local-steps": 0})


@pytest.mark.parametrize("message_type", ["train", "evaluate", "query"])
def test_the_token_is_echoed(message_type):
    reply = ask(app_of(QuadraticTask()), message_type, config={"fedagent-token": "abc"})
    assert dict(reply.content.config_records["config"]) == {"fedagent-token": "abc"}


def test_without_a_token_there_is_nothing_to_echo():
    assert not ask(app_of(QuadraticTask()), config={"server-round": 1}).content.config_records
    assert not ask(app_of(QuadraticTask()), config=None).content.config_records


def test_evaluation_reports_the_dispatched_model_and_sends_no_arrays():
    reply = ask(app_of(QuadraticTask()), "evaluate")
    assert dict(reply.content.metric_records["metrics"]) == {"accuracy": 5.0, "num-examples": 3.0}
    assert not reply.content.array_records


def test_a_query_describes_the_node():
    metrics = ask(app_of(QuadraticTask()), "query", partition_id=2).content.metric_records
    assert dict(metrics["metrics"]) == {"partition-id": 2, "num-examples": 30, "has-accelerator": 0}


@pytest.mark.parametrize("message_type", ["train", "evaluate", "query"])
def test_a_node_without_partition_id_is_told_how_to_start(message_type):
    start = r'flower-supernode --node-config "partition-id=0 num-partitions=2"'
    with pytest.raises(ConfigurationError, match=start):
        ask(app_of(QuadraticTask()), message_type, partition_id=None)


def test_the_client_is_built_once_per_run_config():
    built = []

    def build(run_config):
        built.append(run_config["overrides"])
        return ClientSpec(QuadraticTask(), LocalTraining(), "cpu")

    app = build_client_app(build)
    for node, overrides in enumerate(["seed=1", "seed=1", "seed=2", "seed=1"]):
        ask(app, partition_id=node, run_config={"overrides": overrides})
    assert built == ["seed=1", "seed=2"]


def test_a_process_that_is_warm_trains_as_a_fresh_one_does():
    app = app_of(QuadraticTask(noise=1.0))
    replies = []
    for _ in range(2):  # the first message builds the model, which draws random numbers
        torch.manual_seed(3)
        replies.append(y_of(ask(app)))
    assert replies[0] == replies[1]


def test_mods_see_every_message():
    seen = []

    def spy(message, context, call_next):
        seen.append(message.metadata.message_type)
        return call_next(message, context)

    app = build_client_app(
        lambda _: ClientSpec(QuadraticTask(), LocalTraining(), "cpu"), mods=[spy]
    )
    for message_type in ("train", "evaluate", "query"):
        ask(app, message_type)
    assert seen == ["train", "evaluate", "query"]


def test_mods_of_the_client_see_every_message_inside_those_of_the_app():
    order = []

    def noting(name):
        def mod(message, context, next_app):
            order.append(name)
            return next_app(message, context)

        return mod

    client = ClientSpec(
        QuadraticTask(), LocalTraining(), "cpu", [noting("first"), noting("second")]
    )
    app = build_client_app(lambda run_config: client, mods=[noting("app")])

    app(
        Message(RecordDict(), dst_node_id=5, message_type="query"),
        Context(1, 5, {"partition-id": 0}, RecordDict(), {}),
    )

    assert order == ["app", "first", "second"]
