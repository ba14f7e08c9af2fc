"""The records of a message go by any name: the app and all mods find them, and answer under it."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedagent import AsyncStrategy, FedBuff, run_simulation
from fedagent._flower import identify_process
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.client.mods import (
    area_difference_mod,
    continue_locally_mod,
    partition_id_mod,
    sparse_rows_mod,
)
from fedagent.client.request import config_in, model_in
from fedagent.client.vectorised import VectorisedTrainer
from fedagent.errors import ConfigurationError
from fedagent.rules import AREA
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.simulation import Runtime, Scripted
from fedagent.wire.records import digest, to_record
from tests.client.quadratic import QuadraticTask
from tests.toy import Log

USUAL = {"arrayrecord_key": "arrays", "configrecord_key": "config"}
OTHER = {"arrayrecord_key": "weights", "configrecord_key": "settings"}
FLEET = Scripted(num_nodes=4, times=(1.0, 1.3, 2.9, 7.1))
INITIAL = {"y": torch.zeros(40), "seen": torch.tensor(0)}


class Rows(QuadraticTask):
    """A task with rows, of which a node's training changes a few."""

    def build_model(self):
        model = super().build_model()
        model.y = torch.nn.Parameter(torch.zeros(40))
        return model

    def loss(self, model, batch):
        model.seen += 1
        return 0.5 * (model.y[:2] - batch["target"]).square().sum()


class Names:
    """A mod that notes the records of requests and replies, and the steps that were done."""

    def __init__(self):
        self.requests, self.replies, self.steps = set(), set(), set()

    def __call__(self, message: Message, context: Context, call_next) -> Message:
        self.requests |= {*message.content}
        reply = call_next(message, context)
        self.replies |= {*reply.content}
        if "local-steps" in reply.content["metrics"]:
            self.steps.add(reply.content["metrics"]["local-steps"])
        return reply


def final(strategy, mods=(), names=None, train_config=None, runtime=None) -> str:
    """Run a strategy on our ClientApp and return the sha256 of the model."""
    spec = ClientSpec(Rows(noise=1.0), LocalTraining(local_steps=3), "cpu", mods)
    app = build_client_app(lambda _: spec, mods=[names] if names else [])
    server, digests = ServerApp(), []

    @server.main()
    def _main(grid, context):
        config = ConfigRecord(train_config or {})
        result = strategy.start(
            grid, ArrayRecord(INITIAL), num_rounds=4, train_config=config, evaluate_config=config
        )
        digests.append(digest(result.arrays))

    run_simulation(server, app, fleet=FLEET, seed=3, runtime=runtime)
    return digests[0]


MODS = {
    "none": ([], {}, lambda: FedBuffRule(2)),
    "area": ([area_difference_mod], {}, lambda: AREA(4, 1)),
    "continue locally": ([continue_locally_mod], {"prefetch": 1}, lambda: FedBuffRule(2)),
    "sparse rows": ([sparse_rows_mod], {}, lambda: FedBuffRule(2)),
    "partition id": ([partition_id_mod], {}, lambda: FedBuffRule(2)),
    "sparse rows of area": ([sparse_rows_mod, area_difference_mod], {}, lambda: AREA(4, 1)),
}


@pytest.mark.parametrize("which", MODS)
def test_an_asynchronous_run_is_the_same_under_other_names(which):
    mods, settings, rule = MODS[which]
    asked = {"local-steps": 7}

    def run(record_names):
        names, log = Names(), Log()
        strategy = AsyncStrategy(
            rule(), concurrency=3, evaluate_clients_every=2, callbacks=[log], **settings,
            **record_names,
        )  # fmt: skip
        sha256 = final(strategy, mods, names, asked)
        assert {s.outcome for s in log.settlements if s.reason != "run-ended"} == {"applied"}
        return sha256, names, log.statistics.bytes_up

    (usual, _, usual_bytes), (other, names, other_bytes) = run(USUAL), run(OTHER)
    assert other == usual
    assert other_bytes == usual_bytes
    assert names.requests == {"weights", "settings"}
    assert names.replies == {"weights", "settings", "metrics"}
    assert names.steps == {7}


@pytest.mark.parametrize("which", ["none", "partition id", "sparse rows", "continue locally"])
def test_flowers_own_fedavg_is_the_same_under_other_names(which):
    def run(record_names):
        names = Names()
        return final(FedAvg(**record_names), MODS[which][0], names, {"local-steps": 7}), names

    (usual, _), (other, names) = run(USUAL), run(OTHER)
    assert other == usual
    assert names.requests == {"weights", "settings"}
    assert names.replies == {"weights", "metrics"}  # there is no token to send back
    assert names.steps == {7}


@pytest.mark.parametrize("strategy", [FedAvg, FedBuff])
def test_clients_that_are_trained_together_find_them_too(strategy, monkeypatch):
    groups = []
    own = VectorisedTrainer.train

    def train(self, shares, training):
        groups.append([len(share.batches) for share in shares])
        return own(self, shares, training)

    monkeypatch.setattr(VectorisedTrainer, "train", train)
    runtime = Runtime(workers=0, vectorise="always")
    asked = {"local-steps": 7}
    usual, other = (final(strategy(**n), (), None, asked, runtime) for n in (USUAL, OTHER))
    assert other == usual
    assert len(groups) >= 2
    assert {steps for group in groups for steps in group} == {7}


# --- which record it is ---------------------------------------------------------------------------


def message(**records) -> Message:
    identify_process(run_id=1, node_id=1, task_id=1)
    return Message(RecordDict(records), dst_node_id=5, message_type="train")


def model(value: float = 0.0) -> ArrayRecord:
    return ArrayRecord({"y": torch.full((2,), value)})


OURS = ["local-steps", "learning-rate", "batch-size", "fedagent-token", "num-applied"]


def test_the_only_record_of_its_kind_is_the_one():
    asked = message(weights=model(), settings=ConfigRecord({"x": 1}), other=MetricRecord())
    assert model_in(asked)[0] == "weights"
    assert config_in(asked) == ("settings", ConfigRecord({"x": 1}))


def test_a_message_without_config_asks_for_nothing():
    assert config_in(message(arrays=model())) == ("config", ConfigRecord())


@pytest.mark.parametrize("key", [*OURS, "fedagent-unapplied"])
def test_among_several_configs_it_is_the_one_with_a_key_of_ours(key):
    value = ["t"] if key == "fedagent-unapplied" else "1"
    asked = message(
        first=ConfigRecord({"x": 1}), mine=ConfigRecord({key: value}), config=ConfigRecord({"y": 2})
    )
    assert config_in(asked)[0] == "mine"


def test_several_configs_that_ask_for_nothing_are_no_trouble():
    theirs = message(a=ConfigRecord({"x": 1}), b=ConfigRecord({"y": 2}))
    assert config_in(theirs) == ("config", ConfigRecord())
    usual = message(a=ConfigRecord({"x": 1}), config=ConfigRecord({"server-round": 2}))
    assert config_in(usual) == ("config", ConfigRecord({"server-round": 2}))


def test_among_several_models_it_is_the_one_of_the_usual_name():
    assert model_in(message(control=model(1.0), arrays=model()))[1] == model()


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ({"control": model(), "weights": model()}, r"ArrayRecords 'control', 'weights'"),
        ({}, "no ArrayRecord"),
        (
            {
                "weights": model(),
                "a": ConfigRecord({"local-steps": 7}),
                "b": ConfigRecord({"learning-rate": 0.5}),
            },
            r"ConfigRecords 'a', 'b'",
        ),
    ],
)
@pytest.mark.parametrize("mod", [None, area_difference_mod, sparse_rows_mod, continue_locally_mod])
def test_what_cannot_be_told_is_an_error_that_names_the_records(records, named, mod):
    spec = ClientSpec(QuadraticTask(), LocalTraining(), "cpu", [mod] if mod else [])
    app = build_client_app(lambda _: spec)
    context = Context(1, 5, {"partition-id": 0}, RecordDict(), {})
    with pytest.raises(ConfigurationError, match=named):
        app(message(**records), context)


@pytest.mark.parametrize("mod", [area_difference_mod, sparse_rows_mod, continue_locally_mod])
def test_a_users_reply_may_name_its_model_as_it_likes(mod):
    app = ClientApp(mods=[mod])

    @app.train()
    def _train(request, context):
        mine = to_record({"y": np.array([3.0, 4.0], np.float32)})
        return Message(RecordDict({"mine": mine, "metrics": MetricRecord()}), reply_to=request)

    asked = ConfigRecord({"fedagent-token": "t", "num-applied": 0, "fedagent-unapplied": ["s"]})
    context = Context(1, 5, {}, RecordDict(), {})
    reply = app(message(arrays=model(), config=asked), context)
    assert reply.content["mine"]["y"].numpy().tolist() == [3.0, 4.0]
