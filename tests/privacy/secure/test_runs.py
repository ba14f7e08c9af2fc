"""Runs whose proxy sees sums: every update is in the model once, or counted with its reason."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam

from benchmarks.reliability.local_grid import Counting, LocalGrid
from fedagent import (
    AsyncStrategy,
    Collaborative,
    FedBuff,
    Robust,
    SecureAggregation,
    asynchronous,
    keys,
)
from fedagent.admission.filters import NormBound
from fedagent.client.mods import codec_mod, secure_mod
from fedagent.errors import ConfigurationError
from fedagent.journal import Checkpoints
from fedagent.mixing import ring
from fedagent.privacy import Private
from fedagent.privacy.secure import Member, Stage
from fedagent.rules import CA2FL, FADAS, Median, Rennala
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal, Reliability, Scripted
from fedagent.simulation.grid import SimulationGrid
from fedagent.simulation.workers.checked import first_difference
from fedagent.simulation.workers.work import ClientResult
from fedagent.stopping import MaxUpdates, MaxVersions
from fedagent.update import Kind
from fedagent.wire.records import digest, to_record
from tests.toy import Log, client_app, run

JOBS, K = 400, 4
FLEET = Lognormal(num_nodes=12, seed=2)


def secured(size=K, **options):
    """FedBuff under masks; what it does not say is small."""
    settings = {"concurrency": 6, "cohort": size, "fraction_evaluate": 0.0} | options
    secure = settings.pop("secure", SecureAggregation())
    return FedBuff(buffer_size=size, staleness=constant, secure=secure, **settings)


def stage_of(message: Message) -> int | None:
    return message.content.config_records["config"].get(keys.SECURE)


def counting_app(mods=(secure_mod,)) -> ClientApp:
    """Every job adds 1 to an element of its own: what is in the model shows how often it came."""
    app, numbers = ClientApp(mods=[*mods]), iter(range(JOBS))

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        counts = message.content["arrays"].to_numpy_ndarrays()[0].copy()
        counts[next(numbers)] += 1
        content = RecordDict(
            {
                "arrays": ArrayRecord([counts]),
                "metrics": MetricRecord({"num-examples": context.node_id % 7 + 1}),
            }
        )
        return Message(content, reply_to=message)

    return app


def counts_of(strategy, fleet=FLEET, mods=(secure_mod,), **arguments):
    """Return what a run made of the counting client's model, times K."""
    initial = {"0": torch.zeros(JOBS)}
    done = run(strategy, fleet, client=counting_app(mods), initial=initial, **arguments)
    return K * done.result.arrays.to_numpy_ndarrays()[0]


def test_every_update_is_in_the_model_once_with_the_same_weight():
    strategy = secured()
    counts = counts_of(strategy, rounds=10)
    assert set(counts) == {0.0, 1.0}
    statistics = strategy.proxy.statistics
    assert counts.sum() == statistics.num_updates == 40
    assert statistics.version == 10, "also the sums that were under way at the end"
    assert (statistics.buffered, statistics.lost) == (0, {})
    assert statistics.unmasking_outcomes == {("applied", ""): 3 * 40}


def test_what_comes_of_a_node_is_keys_shares_and_words_under_masks(monkeypatch):
    heard = []
    pull = SimulationGrid.pull_messages

    def listening(self, message_ids):
        replies = pull(self, message_ids)
        heard.extend(replies)
        return replies

    monkeypatch.setattr(SimulationGrid, "pull_messages", listening)
    counts_of(secured(), rounds=5)
    arrays = [dict(reply.content.array_records) for reply in heard if not reply.has_error()]
    assert all(list(records) == [keys.SEALED] for records in arrays)
    names = {tuple(sorted(records[keys.SEALED])) for records in arrays}
    assert names == {("keys",), ("commitment", "sealed"), ("masked",), ("has_share", "shares")}
    masked = [r[keys.SEALED]["masked"].numpy() for r in arrays if "masked" in r[keys.SEALED]]
    assert len(masked) == 20
    assert all(len(np.unique(words)) > 0.99 * JOBS for words in masked), "of updates it would be 2"


def vanishing(num_nodes, from_stage):
    """Return a mod with which some nodes do not answer once they are admitted."""

    def mod(message, context, call_next):
        stage = stage_of(message) or 0
        if context.node_config["partition-id"] < num_nodes and stage >= from_stage:
            return Message(Error(0, "gone"), reply_to=message)
        return call_next(message, context)

    return mod


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.MASK, Stage.REVEAL])
def test_three_of_ten_vanish_after_they_were_admitted_and_the_rest_is_exact(stage):
    strategy = secured(10, concurrency=10)
    counts = (
        10
        / K
        * counts_of(strategy, Equal(num_nodes=10), (vanishing(3, stage), secure_mod), rounds=3)
    )
    statistics = strategy.proxy.statistics
    in_sums = 30 if stage is Stage.REVEAL else 21
    np.testing.assert_array_equal(np.sort(counts)[-in_sums:], np.ones(in_sums, np.float32))
    assert counts.sum() == in_sums
    assert statistics.lost == ({} if in_sums == 30 else {"vanished": 9})
    assert statistics.version == 3


def test_too_few_left_are_counted_and_their_nodes_train_again():
    strategy = secured(10, concurrency=10)
    counts = counts_of(
        strategy, Equal(num_nodes=10), (vanishing(4, Stage.MASK), secure_mod), rounds=3
    )
    statistics = strategy.proxy.statistics
    assert not counts.any()
    assert statistics.version == 0
    assert statistics.lost == {"too-few-members": 30}
    assert statistics.unmasking_outcomes["failed", "unknown-error"] == 12
    assert statistics.by_outcome()["applied"] == 30


def test_a_fleet_that_fails_and_falls_silent_loses_what_it_counts_as_lost():
    fleet = Lognormal(
        num_nodes=12, seed=2, reliability=Reliability(failure_rate=0.1, silence_rate=0.05)
    )
    strategy = secured(deadline_s=30.0, secure=SecureAggregation(threshold=0.5, deadline_s=20.0))
    counts = counts_of(strategy, fleet, rounds=20)
    statistics = strategy.proxy.statistics
    assert set(counts) == {0.0, 1.0}
    assert statistics.lost["vanished"] > 0
    assert counts.sum() + sum(statistics.lost.values()) + statistics.buffered == 80
    assert statistics.num_updates == 80


def test_others_go_on_training_while_a_sum_waits_for_a_member():
    slow = {5: {"latency_s": 5.0}}
    fleet = Scripted(num_nodes=8, times=(1.0,) * 8, profiles=slow)
    log = Log()
    counts_of(secured(callbacks=[log]), fleet, rounds=25)
    asked = [s for s in log.settlements if s.dispatch.kind is Kind.UNMASK]
    slowest = max(asked, key=lambda s: s.duration_s)
    assert slowest.duration_s == 5.0
    begin, end = slowest.dispatch.sent_at_s, slowest.dispatch.sent_at_s + slowest.duration_s
    meanwhile = [s for s in log.settlements if begin < s.dispatch.sent_at_s < end]
    assert sum(s.dispatch.kind is Kind.TRAIN for s in meanwhile) > 10
    assert [now for _, _, now in log.versions if begin < now < end], "and versions come out"


def test_questions_take_the_time_of_their_bytes_on_the_links():
    profiles = {i: {"upload_bytes_per_s": 1000.0} for i in range(4)}
    fleet = Scripted(num_nodes=4, times=(1e-6,) * 4, profiles=profiles)
    log = Log()
    counts_of(secured(callbacks=[log], concurrency=4), fleet, rounds=1)
    asked = [s for s in log.settlements if s.dispatch.kind is Kind.UNMASK]
    assert [s.duration_s for s in asked] == pytest.approx([s.bytes_up / 1000 for s in asked])
    assert sum(s.bytes_up for s in asked) == log.statistics.bytes_up - 4 * (128 + 64)


def test_the_bytes_of_the_model_do_not_depend_on_keys_or_workers():
    client = client_app(mods=[secure_mod])
    done = [run(secured(), FLEET, rounds=4, client=client, workers=w) for w in (0, 0, 2)]
    assert len({digest(each.result.arrays) for each in done}) == 1
    assert len({each.virtual_time_s for each in done}) == 1


def kept(change):
    member = Member(np.full(3, change, np.float32))
    state = RecordDict({keys.KEPT: to_record(member.to_arrays())})
    reply = RecordDict({keys.SEALED: to_record({"keys": member.public_keys})})
    return ClientResult(reply, state)


def test_a_look_at_what_workers_do_compares_updates_and_no_keys():
    assert first_difference(kept(1.0), kept(1.0)) is None
    assert "array 'change' differs" in first_difference(kept(1.0), kept(2.0))


class Killed(BaseException):
    """What ends a process without a word."""


class Kill(Log):
    def __init__(self, at, kind):
        super().__init__()
        self.left, self.kind = at, kind

    def on_settled(self, statistics, settlement):
        self.left -= settlement.dispatch.kind is self.kind
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize(("at", "kind"), [(14, Kind.TRAIN), (29, Kind.UNMASK)])
def test_a_simulation_that_is_killed_goes_on_to_the_same_bytes(at, kind, tmp_path):
    def start(resume, *callbacks):
        saving = Checkpoints(tmp_path, "updates", 1, resume=resume, in_simulation=True)
        strategy = secured(callbacks=callbacks, checkpoint=saving)
        return run(strategy, FLEET, rounds=8, client=client_app(mods=[secure_mod]))

    whole = run(secured(), FLEET, rounds=8, client=client_app(mods=[secure_mod]))
    with pytest.raises(Killed):
        start(False, Kill(at, kind))
    again = start(True)
    assert digest(again.result.arrays) == digest(whole.result.arrays)
    assert again.virtual_time_s == whole.virtual_time_s


@pytest.mark.parametrize("max_versions", [1, 3])
def test_no_version_comes_out_after_the_last_that_is_wanted(max_versions):
    strategy = secured(stopping=[MaxVersions(max_versions)])
    counts = counts_of(strategy, rounds=100)
    assert strategy.proxy.statistics.version == max_versions
    assert counts.sum() == K * max_versions


def test_fadas_does_with_the_mean_what_it_does_with_its_updates():
    """One buffer of equal nodes, whose sum is exact: the same model, but for the last bits."""

    def trained(secure):
        rule = FADAS(buffer_size=4, server_learning_rate=0.1)
        strategy = AsyncStrategy(rule, concurrency=4, fraction_evaluate=0.0, secure=secure)
        done = run(strategy, Equal(num_nodes=4), rounds=1, client=client_app(mods=[secure_mod]))
        return done.result.arrays.to_torch_state_dict()["weight"]

    torch.testing.assert_close(trained(SecureAggregation()), trained(None), rtol=1e-5, atol=1e-6)


# --- what is refused --------------------------------------------------------------------------

REFUSED = {
    "filters": (lambda **o: secured(robust=Robust(filters=[NormBound()]), **o), "filters look"),
    "median": (lambda **o: secured(robust=Robust(Median()), **o), "Median looks"),
    "per_node": (lambda **o: secured(robust=Robust(per_node="newest"), **o), "per_node looks"),
    "codec": (lambda **o: secured(codec="int8"), "codec=int8"),
    "feedback": (lambda **o: secured(codec="topk:0.1"), "codec=topk:0.1"),
    "prefetch": (lambda **o: secured(prefetch=1), "prefetch=1"),
    "clock": (lambda **o: secured(publish_every_s=5.0), "publish_every_s"),
    "no size": (lambda **o: secured(None, publish_every_s=5.0), "needs a size"),
    "small": (lambda **o: secured(2), "at least 3"),
    "staleness": (
        lambda **o: FedBuff(buffer_size=4, secure=SecureAggregation()),
        "staleness=constant",
    ),
    "error statistics": (
        lambda **o: AsyncStrategy(CA2FL(buffer_size=4), secure=SecureAggregation()),
        "CA2FL goes by single updates",
    ),
    "clipping at the proxy": (
        lambda **o: AsyncStrategy(
            Private(FedBuff(buffer_size=1).rule, 4), secure=SecureAggregation()
        ),
        "Private goes by single updates",
    ),
    "freshness": (
        lambda **o: AsyncStrategy(Rennala(buffer_size=4), secure=SecureAggregation()),
        "Rennala goes by",
    ),
    "mixing": (
        lambda **o: Collaborative(mixing=ring(4), secure=SecureAggregation()),
        "Mixing goes by",
    ),
    "Flower's": (
        lambda **o: asynchronous(FedAdam(), buffer_size=4, secure=SecureAggregation()),
        "goes by single updates",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_single_updates_is_refused_at_the_start(name):
    build, why = REFUSED[name]
    with pytest.raises(ConfigurationError, match=why):
        build()


@pytest.mark.parametrize(
    "settings", [{"threshold": 0.4}, {"threshold": 1.0}, {"limit": 0.0}, {"deadline_s": 0.0}]
)
def test_numbers_that_cannot_work_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigurationError, match=name):
        SecureAggregation(**settings)


def test_a_rounds_size_below_three_is_refused_when_it_is_known():
    strategy = secured("cohort", cohort=2)
    with pytest.raises(ConfigurationError, match="at least 3"):
        counts_of(strategy)


def test_more_members_than_nodes_are_refused():
    with pytest.raises(ConfigurationError, match="13 nodes, and 12 are connected"):
        counts_of(secured(13))


def test_floating_arrays_that_are_carried_are_refused():
    strategy = secured(carried={"0": "keep"})
    initial = {"0": torch.zeros(JOBS), "1": torch.zeros(2)}
    with pytest.raises(ConfigurationError, match="0 would be carried"):
        run(strategy, FLEET, client=counting_app(), initial=initial)


# --- nodes that do what they should not -------------------------------------------------------


def test_a_client_that_has_not_the_mod_is_refused_and_changes_nothing():
    strategy = secured(stopping=[MaxUpdates(8)])
    counts = counts_of(strategy, mods=(), rounds=100)
    assert not counts.any()
    outcomes = strategy.proxy.statistics.by_outcome()
    assert outcomes["rejected(not-sealed)"] > 10
    assert "applied" not in outcomes


def instead(stage, partition, change):
    """Return a mod that changes what one node says in one stage."""

    def mod(message, context, call_next):
        asked = stage_of(message)
        reply = call_next(message, context)
        if asked == stage and context.node_config["partition-id"] == partition:
            change(reply.content)
        return reply

    return mod


def put(name, array):
    def change(content):
        arrays = {n: a.numpy() for n, a in content.array_records[keys.SEALED].items()}
        content[keys.SEALED] = ArrayRecord(
            {n: ArrayRecord([a])["0"] for n, a in (arrays | {name: array}).items()}
        )

    return change


def bare(content):
    content["arrays"] = ArrayRecord([np.zeros(JOBS, np.float32)])


HOSTILE = {
    "short keys": (Stage.KEEP, put("keys", np.ones(63, np.uint8))),
    "keys of low order": (Stage.KEEP, put("keys", np.zeros(64, np.uint8))),
    "the update beside": (Stage.KEEP, bare),
    "another array": (Stage.KEEP, put("more", np.ones(3))),
    "too few shares": (Stage.SHARE, put("sealed", np.ones((2, 60), np.uint8))),
    "terabytes": (Stage.SHARE, put("commitment", np.broadcast_to(np.uint8(1), (32, 1)))),
    "floats": (Stage.MASK, put("masked", np.ones(JOBS, np.float32))),
    "long words": (Stage.MASK, put("masked", np.full(JOBS, 2**40, np.uint64))),
    "no mask": (Stage.MASK, lambda content: content.pop(keys.SEALED)),
    "shares of others": (Stage.REVEAL, put("shares", np.ones((3, 16), np.uint8))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_counted_and_the_others_sum_is_exact(name):
    stage, change = HOSTILE[name]
    strategy = secured(secure=SecureAggregation(threshold=0.5), concurrency=12)
    counts = counts_of(
        strategy, Equal(num_nodes=12), (instead(stage, 0, change), secure_mod), rounds=6
    )
    statistics = strategy.proxy.statistics
    assert set(counts) == {0.0, 1.0}
    assert counts.sum() + statistics.lost.get("vanished", 0) == 24
    outcomes = statistics.outcomes if stage is Stage.KEEP else statistics.unmasking_outcomes
    refused = {reason for (outcome, reason), _ in outcomes.items() if outcome == "rejected"}
    assert refused <= {"sealed", "not-sealed"}
    assert refused


def test_a_client_that_trains_to_infinity_keeps_nothing_and_says_so():
    def explode(message, context, call_next):
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            reply.content["arrays"] = ArrayRecord([np.full(JOBS, np.inf, np.float32)])
        return reply

    strategy = secured()
    counts = counts_of(strategy, mods=(secure_mod, explode), rounds=5)
    assert set(counts) == {0.0, 1.0}
    assert strategy.proxy.statistics.by_outcome()["failed(mod-failed)"] > 0


def test_a_node_cuts_what_is_beyond_the_limit_and_says_so(caplog):
    strategy = secured(secure=SecureAggregation(limit=0.5))
    caplog.set_level("WARNING", "flwr")
    counts = counts_of(strategy, rounds=2)
    assert set(counts) == {0.0, 0.5}
    assert "limit=0.5" in caplog.text


def test_a_node_that_was_started_anew_has_vanished():
    def forgetful(message, context, call_next):
        if stage_of(message) == Stage.MASK and context.node_config["partition-id"] == 1:
            context.state.clear()
        return call_next(message, context)

    strategy = secured(secure=SecureAggregation(threshold=0.5))
    counts = counts_of(strategy, mods=(forgetful, secure_mod), rounds=6)
    statistics = strategy.proxy.statistics
    assert counts.sum() + statistics.lost["vanished"] == 24
    assert set(counts) == {0.0, 1.0}


# --- a real fleet -----------------------------------------------------------------------------


class SecureCounting(Counting):
    """Nodes of a real fleet, which begin with the process and remember nothing before."""

    def __init__(self, folder):
        super().__init__(folder, JOBS)
        self.contexts = {}

    def __call__(self, message):
        node = message.metadata.dst_node_id
        context = self.contexts.setdefault(node, Context(1, node, {}, RecordDict(), {}))

        def work(message, context):
            return super(SecureCounting, self).__call__(message)

        def keeping(message, context):
            return secure_mod(message, context, work)

        return codec_mod(message, context, keeping)


@pytest.mark.parametrize(("at", "kind"), [(3, Kind.TRAIN), (25, Kind.TRAIN), (47, Kind.UNMASK)])
def test_a_run_on_a_real_fleet_goes_on_and_what_nodes_kept_is_counted_as_lost(at, kind, tmp_path):
    def started(resume, *callbacks):
        app = SecureCounting(tmp_path)
        saving = Checkpoints(tmp_path / "checkpoints", "updates", 10, resume=resume)
        strategy = secured(
            callbacks=callbacks, checkpoint=saving, stopping=[MaxUpdates(60)], concurrency=5
        )
        result = strategy.start(LocalGrid(app, range(100, 110)), app.initial(), num_rounds=1_000)
        return strategy.proxy.statistics, K * result.arrays.to_numpy_ndarrays()[0]

    kill = Kill(at, kind)
    with pytest.raises(Killed):
        started(False, kill)
    log = Log()
    statistics, counts = started(True, log)
    assert set(counts) == {0.0, 1.0}
    assert statistics.num_updates == 60
    assert counts.sum() + sum(statistics.lost.values()) + statistics.buffered == 60
    assert 0 <= statistics.lost.get("interrupted", 0) <= 10
    versions = [number for number, *_ in log.versions]
    assert versions == list(range(versions[0], versions[-1] + 1)), "each came out once"
    assert statistics.version == counts.sum() / K


class Emptying(LocalGrid):
    """For some looks there are two nodes."""

    looks = 0

    def get_node_ids(self):
        self.looks += 1
        return super().get_node_ids()[: 2 if 10 < self.looks < 20 else None]


def test_where_too_few_nodes_are_left_for_a_sum_it_waits_until_they_are_back(tmp_path, caplog):
    caplog.set_level("WARNING", "flwr")
    app = SecureCounting(tmp_path)
    strategy = secured("cohort", cohort=None, concurrency=None, membership_interval_s=1e-9)
    result = strategy.start(Emptying(app), app.initial(), num_rounds=40, timeout=30)
    counts = result.arrays.to_numpy_ndarrays()[0]
    assert result.end.kind == "completed", result.end
    assert "3 nodes, and 2 are connected" in caplog.text
    assert set(counts[counts > 0]) <= {np.float32(0.25), np.float32(1 / 3)}
