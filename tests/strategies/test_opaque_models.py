"""A model that only its strategy understands: bytes that grow, replies as they came."""

from functools import partial

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, FedXgbCyclic

from fedagent import asynchronous
from fedagent.errors import ConfigurationError
from fedagent.nodes.geography import Blocks
from fedagent.rules import FedAsync, Hierarchical
from fedagent.rules.opaque import OpaqueModel
from fedagent.rules.staleness import threshold
from fedagent.simulation import Lognormal
from fedagent.strategies.flower_rule import FlowerRule
from tests.toy import Log, run


def record_of(text):
    return ArrayRecord([np.frombuffer(text.encode(), dtype=np.uint8)])


def text_of(record):
    (array,) = record.to_numpy_ndarrays()
    return array.tobytes().decode()


class Words(FedAvg):
    """A strategy whose model is a text: it adds what its nodes say."""

    def configure_train(self, server_round, arrays, config, grid):
        self.text = text_of(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        said = "".join(text_of(reply.content["arrays"]) for reply in replies)
        if "?" in said:
            raise ValueError("a question")
        return record_of(self.text + said), MetricRecord({"length": len(self.text + said)})


def speaker(say):
    """A ClientApp that answers with ``say(partition, text)``; None for a reply without arrays."""
    app = ClientApp()

    @app.train()
    def _train(message, context):
        text = say(context.node_config["partition-id"], text_of(message.content["arrays"]))
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        if text is not None:
            content["arrays"] = record_of(text)
        return Message(content, reply_to=message)

    return app


def start(strategy, say, rounds=5, num_nodes=4, **options):
    log = Log()
    settings = {"buffer_size": num_nodes, "fraction_evaluate": 0.0, "callbacks": [log], **options}
    outcome = run(
        asynchronous(strategy, rebase=False, **settings),
        Lognormal(num_nodes=num_nodes),
        rounds=rounds,
        client=speaker(say),
        initial={"0": torch.zeros(0, dtype=torch.uint8)},
    )
    return outcome.result, log.statistics


def test_a_model_of_bytes_grows_from_nothing():
    result, statistics = start(Words(), lambda partition, text: "abcd"[partition])
    assert len(text_of(result.arrays)) == 20
    assert set(text_of(result.arrays)) == set("abcd")
    assert [m["length"] for m in result.train_metrics_clientapp.values()] == [4, 8, 12, 16, 20]
    assert statistics.by_outcome()["applied"] == 20


def test_it_is_published_by_the_clock():
    result, _ = start(Words(), lambda *_: "x", buffer_size=None, publish_every_s=1.5)
    assert set(text_of(result.arrays)) == {"x"}


def test_what_a_strategy_cannot_read_costs_a_version():
    asked = []

    def say(partition, text):
        asked.append(text)
        return "?" if len(asked) == 2 else "x"

    result, statistics = start(Words(), say)
    assert set(text_of(result.arrays)) == {"x"}
    assert dict(statistics.lost) == {"strategy-raised": 4}


def test_a_reply_without_arrays_is_refused():
    result, statistics = start(Words(), lambda partition, _: "x" if partition else None)
    assert statistics.outcomes["rejected", "array-records"] > 0
    assert set(text_of(result.arrays)) == {"x"}


def test_a_reply_that_should_weigh_nothing_is_refused_without_blame():
    """Nothing of it can be scaled, so it counts or it does not."""
    fresh_only = partial(threshold, limit=0)
    _, statistics = start(FedXgbCyclic(), lambda _, text: text + "x", 8, staleness=fresh_only)
    assert statistics.outcomes["rejected", "too-stale"] > 0
    assert statistics.staleness_max == 0


def test_flower_s_strategies_for_trees_need_no_setting():
    for strategy in (FedXgbCyclic(), _private(FedXgbCyclic())):
        assert asynchronous(strategy).rule.is_opaque
    assert not asynchronous(FedAvg()).rule.is_opaque


def _private(strategy):
    return DifferentialPrivacyServerSideFixedClipping(strategy, 0.0, 1.0, 1)


def test_regions_that_could_not_merge_their_models_are_refused():
    regions = Blocks(num_regions=2, num_nodes=4)
    with pytest.raises(ConfigurationError, match="only FlowerRule understands its model"):
        Hierarchical(regions, edge=lambda: FlowerRule(Words(), 2, rebase=False), root=FedAsync(1.0))


def test_an_opaque_model_goes_on_from_its_state():
    model, other = (OpaqueModel({"0": np.frombuffer(t, np.uint8)}) for t in (b"old", b"newer"))
    other.version = 3
    model.load_state_dict(other.state_dict())
    assert (model.version, model.arrays()["0"].tobytes()) == (3, b"newer")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_any_array_may_be_in_it(dtype):
    model = OpaqueModel({"x": np.zeros((2, 3), dtype)})
    assert model.arrays()["x"].dtype == dtype
    assert len(model.vector) == 0
