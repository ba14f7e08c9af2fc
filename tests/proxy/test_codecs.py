"""Runs whose messages are encoded: who gets what, what counts, and that nothing depends on luck."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedagent import AsyncStrategy, FedBuff, keys
from fedagent.client.mods import codec_mod
from fedagent.errors import ConfigurationError
from fedagent.proxy.codecs import NodeCodecs
from fedagent.rules import ASGD
from fedagent.simulation import Lognormal, Reliability
from fedagent.stopping import MaxUpdates
from fedagent.wire.coding import Coding
from fedagent.wire.records import digest
from tests.journal.test_resume import ended, killed, started
from tests.toy import Log, client_app, run

NODES = 8
FLEET = Lognormal(num_nodes=NODES, seed=3)
CODINGS = {
    "packed": Coding(),
    "int4": Coding("int4"),
    "topk and int8, decayed": Coding(["topk:0.4", "int8"], None, "decayed"),
    "qafel": Coding("int4", "int4", held_nodes=4),
    "both with feedback": Coding("topk:0.4", "topk:0.6"),
    "int8 with feedback": Coding("int8", None, "kept"),
}
LOSSY = ["topk and int8, decayed", "qafel", "both with feedback"]


def strategy(coding, rule=None, updates=24, **options):
    options = {"stopping": [MaxUpdates(updates)], "fraction_evaluate": 0.0} | options
    rule = rule or ASGD()
    return AsyncStrategy(rule, codec=coding, concurrency=3, min_available_nodes=1, **options)


def ran(coding, mods=(codec_mod,), fleet=FLEET, workers=0, **options):
    log = Log()
    done = run(
        strategy(coding, callbacks=[log], **options),
        fleet,
        rounds=1_000,
        client=client_app(mods=list(mods)),
        workers=workers,
    )
    return digest(done.result.arrays), log


@pytest.mark.parametrize("down", [None, "packed"])
def test_packed_changes_no_bit_of_a_run(down):
    assert ran(Coding(down=down))[0] == ran(None)[0]


def test_an_app_without_the_mod_answers_as_ever():
    plain, log = ran(Coding("int4", "int4"), mods=())
    assert plain == ran(None, mods=())[0]
    assert log.statistics.by_outcome()["applied"] == 24


def test_what_is_not_for_simulations_leaves_them_alone():
    assert ran(Coding("int4", in_simulation=False))[0] == ran(None)[0]
    assert FedBuff().options.coding(in_simulation=True) is None
    assert FedBuff().options.coding(in_simulation=False) == Coding(in_simulation=False)


@pytest.mark.parametrize("name", LOSSY)
def test_the_number_of_workers_does_not_show(name):
    assert ran(CODINGS[name])[0] == ran(CODINGS[name], workers=2)[0]


@pytest.mark.parametrize("name", LOSSY)
def test_every_coding_learns(name):
    done = run(
        strategy(CODINGS[name], updates=80),
        FLEET,
        rounds=1_000,
        client=client_app(mods=[codec_mod]),
    )
    weights = done.result.arrays["weight"].numpy()[0]
    assert np.abs(weights - [1, 2, 3, 4]).max() < 0.9


def test_bytes_that_travel_are_those_that_count_and_take_time():
    whole, packed = ran(None)[1].statistics, ran(Coding("int4", "packed"))[1].statistics
    assert whole.bytes_up != packed.bytes_up
    (kept,) = {s.bytes_up for s in ran(Coding("half"))[1].settlements if s.bytes_up}
    assert kept == 128 + 2 * 5  # a header, and two bytes for each number


class Bases(ASGD):
    """Keeps what updates started from."""

    def __init__(self):
        super().__init__()
        self.pairs = []

    def receive(self, model, update):
        self.pairs.append((float(update.base.clone().sum()), update.metrics["got"]))
        return super().receive(model, update)


def tell_what_came(message, context, call_next):
    got = sum(float(a.numpy().sum()) for a in message.content["arrays"].values())
    reply = call_next(message, context)
    reply.content["metrics"]["got"] = got
    return reply


def bases_of(coding):
    rule = Bases()
    ran(coding, mods=(codec_mod, tell_what_came), rule=rule, updates=24)
    for proxys, nodes in rule.pairs:
        assert proxys == pytest.approx(nodes, abs=1e-5)
    return rule.pairs


@pytest.mark.parametrize("name", CODINGS)
def test_the_base_of_an_update_is_what_its_node_got(name):
    assert len(bases_of(CODINGS[name])) == 24


def test_a_wrong_base_shows(monkeypatch):
    moved = NodeCodecs._moved
    monkeypatch.setattr(
        NodeCodecs, "_moved", lambda *given: (given[2], moved(*given)[1])
    )  # the version, and not what the node makes of the difference
    with pytest.raises(AssertionError):
        bases_of(CODINGS["both with feedback"])


def test_a_node_that_forgot_is_sent_a_whole_model():
    forgotten = []

    def forget(message, context, call_next):
        if len(forgotten) < 2 and len(context.state) > 1:
            forgotten.append(context.node_id)
            context.state.clear()
        return codec_mod(message, context, call_next)

    _, log = ran(Coding("packed", "int8"), mods=(forget,))
    ends = log.statistics.by_outcome()
    assert len(forgotten) == 2
    assert ends["applied"] == 24
    assert log.statistics.outcomes["failed", "mod-failed"] == 2


@pytest.mark.parametrize(("name", "prefetch"), [("both with feedback", 0), ("qafel", 2)])
def test_failures_and_queues_do_no_harm(name, prefetch):
    fleet = Lognormal(num_nodes=NODES, seed=3, reliability=Reliability(0.2, 0.1))
    _, log = ran(CODINGS[name], fleet=fleet, prefetch=prefetch, deadline_s=50.0)
    assert log.statistics.by_outcome()["applied"] == 24
    told = log.statistics.outcomes
    assert not [end for end in told if end[1] == "mod-failed" or end[0] == "rejected"]


@pytest.mark.parametrize("name", LOSSY)
def test_a_killed_run_with_a_codec_ends_as_if_nothing_had_happened(name, tmp_path, monkeypatch):
    from tests.journal import test_resume

    def with_mod(strategy, fleet, rounds):
        return run(strategy, fleet, rounds=rounds, client=client_app(mods=[codec_mod]))

    monkeypatch.setattr(test_resume, "run", with_mod)

    def build(**options):
        return FedBuff(buffer_size=3, codec=CODINGS[name], **options)

    killed(build, tmp_path)
    resumed = ended(started(build, tmp_path, resume=True), FLEET)
    assert resumed == ended(started(build), FLEET)


# --- liars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        lambda data: data[:-1],
        lambda data: np.zeros(1 << 16, np.uint8),
        lambda data: np.full_like(data, 255),
        lambda data: data.astype(np.float32),
    ],
)
def test_a_liar_costs_a_rejection_each_and_changes_nothing(lie):
    def lying(message, context, call_next):
        reply = codec_mod(message, context, call_next)
        if int(context.node_config["partition-id"]) % 2:
            record = reply.content["arrays"]
            record[keys.ENCODED] = Array(lie(record[keys.ENCODED].numpy()))
        return reply

    _, log = ran(Coding("topk:0.4+int8"), mods=(lying,))
    assert log.statistics.outcomes["rejected", "codec"] > 0
    assert log.statistics.by_outcome()["applied"] == 24


def test_what_nobody_asked_for_is_refused():
    def unasked(partition, reply):
        arrays = ArrayRecord({keys.ENCODED: Array(np.zeros(20, np.uint8))})
        metrics = MetricRecord({"num-examples": 1})
        return RecordDict({"arrays": arrays, "metrics": metrics}) if partition % 2 else None

    log = Log()
    run(strategy(None, callbacks=[log]), FLEET, rounds=1_000, client=client_app(unasked))
    assert log.statistics.outcomes["rejected", "codec"] > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"up": "int2", "feedback": "kept"}, "feedback=none"),
        ({"up": "topk:0.1+int2"}, "feedback=none"),
        ({"up": "int9"}, "unknown"),
        ({"down": "nothing"}, "unknown"),
        ({"down": "powersgd:2"}, "same bits"),
        ({"down": "int2"}, "move away"),
        ({"feedback": "some"}, "feedback"),
        ({"held_nodes": 0}, "held_nodes"),
    ],
)
def test_settings_that_cannot_work_say_so(settings, told):
    with pytest.raises(ConfigurationError, match=told):
        Coding(**settings)
    with pytest.raises(ConfigurationError):
        AsyncStrategy(ASGD(), codec="int9")


def test_ways_to_name_a_codec():
    for up in ("topk:0.1+int4", ["topk:0.1", "int4"], {"values": "int4", "around": "topk:0.1"}):
        assert Coding(up).codec == Coding("int4+topk:0.1").codec
