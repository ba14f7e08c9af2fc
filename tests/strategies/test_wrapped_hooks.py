"""What a strategy's own hooks do is what happens when it is wrapped."""

import copy
import logging

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedagent import asynchronous
from fedagent.simulation import Equal, Lognormal
from tests.toy import Log, run


def echo(heard):
    """A ClientApp that returns the model as it is, a note, and writes down what it was told."""
    app = ClientApp()

    def answer(message, **records):
        heard.append((message.metadata.message_type, dict(message.content)))
        note = ConfigRecord({"from": message.metadata.dst_node_id})
        metrics = MetricRecord({"num-examples": 1, "loss": 2.0})
        content = RecordDict({**records, "measured": metrics, "note": note})
        return Message(content, reply_to=message)

    @app.train()
    def _train(message, context):
        return answer(message, weights=message.content["arrays"])

    @app.train("carefully")
    def _carefully(message, context):
        return answer(message, weights=message.content["arrays"])

    @app.evaluate()
    def _evaluate(message, context):
        return answer(message)

    return app


def start(strategy, heard=None, rounds=3, num_nodes=4, **options):
    """Run a wrapped strategy whose versions are rounds: K is the cohort."""
    client = echo([] if heard is None else heard)
    settings = {"buffer_size": num_nodes, "evaluate_clients_every": 1, **options}
    wrapped = asynchronous(strategy, **settings)
    return run(wrapped, Lognormal(num_nodes=num_nodes), rounds=rounds, client=client)


class Recording(FedAvg):
    """FedAvg that writes down what its hooks are given."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.rounds, self.evaluated, self.nodes, self.replies = [], [], [], []

    def configure_train(self, server_round, arrays, config, grid):
        self.rounds.append(server_round)
        self.nodes.append(list(grid.get_node_ids()))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        self.replies.append(list(replies))
        return super().aggregate_train(server_round, self.replies[-1])

    def aggregate_evaluate(self, server_round, replies):
        self.evaluated.append((server_round, list(replies)))
        return super().aggregate_evaluate(server_round, self.evaluated[-1][1])


def test_a_round_is_configured_once_per_version_with_the_nodes_there_are():
    mine = Recording(fraction_train=0.5)
    outcome = start(mine, num_nodes=8, buffer_size=4)
    assert mine.rounds == [1, 2, 3]
    assert mine.nodes == 3 * [list(outcome.grid.get_node_ids())]


def test_a_strategy_that_wants_more_nodes_than_there_are_does_not_wait_for_them():
    mine = Recording(min_train_nodes=30, min_evaluate_nodes=40)
    start(mine)
    assert {len(set(nodes)) for nodes in mine.nodes} == {40}
    assert mine.evaluated


def test_replies_arrive_as_they_were_sent():
    mine = Recording()
    start(mine)
    for reply in (reply for replies in mine.replies for reply in replies):
        assert sorted(reply.content) == ["measured", "note", "weights"]
        assert reply.content["note"]["from"] == reply.metadata.src_node_id
        assert reply.metadata.reply_to_message_id
        assert dict(reply.content["measured"]) == {"num-examples": 1, "loss": 2.0}


def test_only_metrics_that_every_reply_has_are_aggregated():
    class Curious(Recording):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            self.seen = [sorted(r.content["metrics"]) for r in replies]
            return super().aggregate_train(server_round, replies)

    from tests.toy import client_app

    def measure(partition, reply):
        reply["metrics"][f"only-{partition}"] = 1.0
        return reply

    mine = Curious()
    run(asynchronous(mine, buffer_size=4), Equal(num_nodes=4), rounds=1, client=client_app(measure))
    assert mine.seen == 4 * [["loss", "num-examples"]]


class PerNode(FedAvg):
    """Tells every node something else, and more than settings."""

    def configure_train(self, server_round, arrays, config, grid):
        for node_id in grid.get_node_ids():
            told = ConfigRecord({**config, "you-are": node_id})
            content = {"arrays": arrays, "config": told, "extra": MetricRecord({"mu": 0.5})}
            yield Message(RecordDict(content), dst_node_id=node_id, message_type="train.carefully")

    def configure_evaluate(self, server_round, arrays, config, grid):
        for node_id in grid.get_node_ids():
            content = {"arrays": arrays, "config": ConfigRecord({"i-am": node_id})}
            yield Message(RecordDict(content), dst_node_id=node_id, message_type="evaluate")


def test_what_a_node_is_told_is_what_its_message_says():
    heard, notes = [], []

    class Mine(PerNode):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            notes.extend(r.content["note"]["from"] for r in replies)
            return super().aggregate_train(server_round, replies)

    start(Mine(), heard)
    trained = [content for kind, content in heard if kind == "train.carefully"]
    assert len(trained) >= len(notes) == 12
    assert {content["config"]["you-are"] for content in trained} >= set(notes)
    assert all(content["config"]["lr"] == 0.05 for content in trained)  # of train_config
    assert all(dict(content["extra"]) == {"mu": 0.5} for content in trained)
    evaluated = [content for kind, content in heard if kind == "evaluate"]
    assert len({content["config"]["i-am"] for content in evaluated}) == 4


def test_a_token_stays_the_job_s_own():
    heard = []
    start(PerNode(), heard)
    tokens = [content["config"]["fedagent-token"] for _, content in heard]
    assert len(set(tokens)) == len(tokens)


def test_another_model_that_a_strategy_sends_is_what_is_sent():
    class Halved(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            half = {k: v.numpy() / 2 for k, v in arrays.items()}
            sent = ArrayRecord({k: type(arrays[k])(v) for k, v in half.items()})
            return super().configure_train(server_round, sent, config, grid)

    heard = []
    initial = {"x": torch.ones(2)}
    wrapped = asynchronous(Halved(), buffer_size=2)
    run(wrapped, Equal(num_nodes=2), rounds=1, client=echo(heard), initial=initial)
    assert heard[0][1]["arrays"]["x"].numpy().tolist() == [0.5, 0.5]


def test_metrics_of_aggregate_train_are_the_run_s():
    class Mine(FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            metrics["spread"] = float(server_round)
            return arrays, metrics

    result = start(Mine()).result
    assert {r: dict(m) for r, m in result.train_metrics_clientapp.items()} == {
        r: {"loss": 2.0, "spread": float(r)} for r in (1, 2, 3)
    }


def test_metrics_of_aggregate_train_are_the_run_s_by_the_clock():
    class Mine(FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return arrays, MetricRecord({**metrics, "mine": 1.0})

    result = start(Mine(), buffer_size=None, publish_every_s=2.0).result
    mine = [metrics.get("mine") for metrics in result.train_metrics_clientapp.values()]
    assert mine == [None, 1.0, 1.0]  # the first round ends before the first version


def test_metrics_of_aggregate_evaluate_reach_result_and_callbacks():
    class Mine(FedAvg):
        def aggregate_evaluate(self, server_round, replies):
            metrics = super().aggregate_evaluate(server_round, replies)
            metrics["replies"] = len(list(replies))
            return metrics

    log = Log()
    result = start(Mine(), callbacks=[log]).result
    metrics = dict(result.evaluate_metrics_clientapp[3])
    assert metrics == {"loss": pytest.approx(2.0), "replies": 4}
    assert log.statistics.evaluations[-1].metrics["replies"] == 4


def test_aggregation_of_metrics_given_as_an_option_wins():
    def count(records, key):
        return MetricRecord({"records": len(records)})

    options = {"train_metrics_aggr_fn": count, "evaluate_metrics_aggr_fn": count}
    result = start(FedAvg(), **options).result
    assert dict(result.train_metrics_clientapp[1]) == {"records": 4}
    assert dict(result.evaluate_metrics_clientapp[3]) == {"records": 4}


def test_a_strategy_that_asks_nobody_to_evaluate_is_asked_once_per_version():
    asked = []

    class Silent(FedAvg):
        def configure_evaluate(self, server_round, arrays, config, grid):
            asked.append(server_round)
            return []

    result = start(Silent(), rounds=4, buffer_size=2, concurrency=2).result
    assert asked == [1, 2, 3, 4]
    assert not result.evaluate_metrics_clientapp


# --- what a strategy has besides hooks ------------------------------------------------------------


class Checkpointing(FedAvg):
    path = "nowhere"

    def set_path(self, path):
        self.path = path


def test_attributes_and_methods_are_the_wrapped_strategy_s():
    mine = Checkpointing()
    strategy = asynchronous(mine)
    strategy.set_path("here")
    assert (mine.path, strategy.path) == ("here", "here")
    strategy.path = "there"
    assert (mine.path, strategy.path) == ("there", "there")
    with pytest.raises(AttributeError, match=r"Checkpointing.*'nothing'"):
        _ = strategy.nothing


def test_a_setting_that_is_changed_later_is_heard():
    mine = FedAvg()
    strategy = asynchronous(mine)
    strategy.fraction_train = 0.25
    assert (mine.fraction_train, strategy.options.fraction_train) == (0.25, 0.25)


def test_a_wrapped_strategy_can_be_copied():
    strategy = copy.deepcopy(asynchronous(Checkpointing()))
    strategy.set_path("copied")
    assert strategy.path == "copied"


def test_the_inner_strategy_of_a_privacy_wrapper_is_reachable():
    private = DifferentialPrivacyServerSideFixedClipping(Checkpointing(), 0.0, 1.0, 2)
    assert asynchronous(private).strategy.path == "nowhere"


def test_a_start_of_its_own_is_named_and_what_to_do_instead(caplog):
    class Looping(FedAvg):
        def start(self, *arguments, **options):
            raise AssertionError("not called")

    with caplog.at_level(logging.WARNING, "flwr.fedagent"):
        result = start(Looping()).result
    (record,) = [r for r in caplog.records if "start()" in r.message]
    assert "Looping.start() is not called" in record.message
    assert "evaluate_fn" in record.message
    assert len(result.train_metrics_clientapp) == 3
