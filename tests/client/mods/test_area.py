"""AREA's promise, end to end."""

from collections import Counter

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedagent import AsyncStrategy
from fedagent.client.mods import area_difference_mod
from fedagent.errors import FedagentError
from fedagent.rules import AREA
from fedagent.simulation import Reliability, Scripted
from tests import toy

NODE = 5


class Phone:
    """One node: what it trains to next, and the state that Flower keeps for it."""

    def __init__(self):
        self.state = RecordDict()
        self.kind = "train"

    def ask(self, base, trained, num_applied: int | None = 0, seen: int = 7) -> dict:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
        config = {} if num_applied is None else {"num-applied": num_applied}
        content = RecordDict({"arrays": record(base, 5), "config": ConfigRecord(config)})
        message = Message(content, dst_node_id=NODE, message_type=self.kind)
        context = Context(1, NODE, {}, self.state, {})

        def train(message: Message, context: Context) -> Message:
            message.content["arrays"].to_torch_state_dict(keep_input=False)  # as Flower users do
            return Message(RecordDict({"arrays": record(trained, seen)}), reply_to=message)

        reply = area_difference_mod(message, context, train)
        return {k: v.numpy() for k, v in reply.content.array_records["arrays"].items()}


def record(values, seen: int) -> ArrayRecord:
    return ArrayRecord({"w": torch.tensor(values), "seen": torch.tensor(seen)})


def test_whole_model_is_sent_until_the_proxy_has_applied_one():
    phone = Phone()

    replies = [phone.ask([1.0, 1.0], [3.0, 4.0]), phone.ask([2.0, 2.0], [5.0, 6.0])]

    assert [reply["w"].tolist() for reply in replies] == [[3.0, 4.0], [5.0, 6.0]]


def test_difference_to_the_last_applied_model_is_sent_on_top_of_the_dispatched_one():
    phone = Phone()
    phone.ask([1.0, 1.0], [3.0, 4.0], num_applied=0)

    reply = phone.ask([10.0, 20.0], [4.0, 6.0], num_applied=1)

    assert reply["w"].tolist() == [10.0 + (4.0 - 3.0), 20.0 + (6.0 - 4.0)]
    assert reply["seen"] == 7, "counters are carried, not subtracted"


def test_difference_that_was_lost_is_part_of_the_next_one():
    phone = Phone()
    phone.ask([0.0], [3.0], num_applied=0)
    phone.ask([0.0], [50.0], num_applied=1)  # never applied

    reply = phone.ask([0.0], [4.0], num_applied=1)

    assert reply["w"].tolist() == [4.0 - 3.0]


def test_only_what_the_proxy_may_hold_is_kept():
    phone = Phone()
    for num_applied in range(5):
        phone.ask([0.0], [float(num_applied)], num_applied)

    assert len(phone.state) == 2


def test_node_that_lost_its_memory_says_so_instead_of_sending_something_wrong():
    with pytest.raises(FedagentError, match="lost its memory"):
        Phone().ask([0.0], [1.0], num_applied=3)


def test_another_rule_is_told_that_the_mod_does_not_fit():
    with pytest.raises(FedagentError, match=r"rules\.AREA only"):
        Phone().ask([0.0], [1.0], num_applied=None)


def test_evaluation_passes_untouched():
    phone = Phone()
    phone.kind = "evaluate"

    assert phone.ask([0.0], [1.0], num_applied=None)["w"].tolist() == [1.0]
    assert not phone.state


# --- on a fleet -------------------------------------------------------------------------------


class Witness:
    """A ClientApp whose nodes train as `toy` does, and who notes every y under its token."""

    def __init__(self, refused_every: int | None = None):
        self.models: dict[str, np.ndarray] = {}
        self.app = ClientApp(mods=[area_difference_mod])

        @self.app.train()
        def _train(message: Message, context: Context) -> Message:
            partition = int(context.node_config["partition-id"])
            net, _ = toy.train(message.content["arrays"].to_torch_state_dict(), partition)
            self.models[str(message.content["config"]["fedagent-token"])] = vector(net.state_dict())
            is_refused = refused_every is not None and len(self.models) % refused_every == 0
            metrics = MetricRecord({"num-examples": 0 if is_refused else 1})
            content = {"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}
            return Message(RecordDict(content), reply_to=message)


def vector(arrays) -> np.ndarray:
    return np.concatenate([np.asarray(arrays[name]).ravel() for name in ("weight", "bias")])


def last_applied(witness: Witness, log: toy.Log) -> dict[int, np.ndarray]:
    return {
        s.dispatch.node_id: witness.models[s.dispatch.token]
        for s in log.settlements
        if s.outcome == "applied"
    }


@pytest.mark.parametrize("publish_every", [1, 3])
@pytest.mark.parametrize(
    ("speeds", "num_nodes", "concurrency"),
    [
        ((1.0, 1.3, 2.9, 7.1), 4, 4),
        ((1.0, 1.3, 2.9, 7.1), 4, 2),
        ((1.0, 1.3, 2.9, 500.0), 4, 4),  # one is never heard: x_0 stands in for it
        ((1.0, 1.3, 2.9, 7.1), 2, 4),  # more nodes answer than were announced
    ],
    ids=["all", "two-at-once", "silent", "unannounced"],
)
def test_model_is_the_mean_of_the_models_last_sent(speeds, num_nodes, concurrency, publish_every):
    witness, log = Witness(), toy.Log()
    initial = {"weight": torch.full((1, 4), 0.5), "bias": torch.tensor([-1.0])}
    rule = AREA(num_nodes, publish_every)

    result = toy.run(
        AsyncStrategy(rule, concurrency=concurrency, callbacks=[log], fraction_evaluate=0.0),
        Scripted(num_nodes=4, times=speeds),
        rounds=15,
        client=witness.app,
        initial=initial,
    ).result

    y = last_applied(witness, log)
    silent = max(num_nodes, len(y)) - len(y)
    x = vector({name: array.numpy() for name, array in result.arrays.items()})
    np.testing.assert_allclose(
        x, np.mean([*y.values(), *[vector(initial)] * silent], axis=0), rtol=0, atol=2e-6
    )


def test_model_stays_the_mean_when_replies_are_refused_or_lost():
    witness, log = Witness(refused_every=4), toy.Log()
    fleet = Scripted(
        num_nodes=4,
        times=(1.0, 1.3, 2.9, 7.1),
        jitter=0.8,  # now and then a job misses its deadline; its reply comes late
        reliability=Reliability(failure_rate=0.1),
    )

    result = toy.run(
        AsyncStrategy(AREA(4, 1), concurrency=4, callbacks=[log], fraction_evaluate=0.0),
        fleet,
        rounds=40,
        client=witness.app,
        timeout=8.0,
    ).result

    in_time = [s for s in log.settlements if s.reason != "run-ended"]
    ends = Counter(str(s.outcome) for s in in_time)
    assert ends["rejected"] >= 5, ends
    assert ends["expired"] >= 2, ends
    assert ends["failed"] >= 2, ends
    x = vector({name: array.numpy() for name, array in result.arrays.items()})
    y = last_applied(witness, log)
    assert len(y) == 4
    np.testing.assert_allclose(x, np.mean(list(y.values()), axis=0), rtol=0, atol=5e-6)
