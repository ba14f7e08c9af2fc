"""A simulated run that dies and is resumed ends as if it had not: to the last bit."""

from dataclasses import asdict

import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import FedAdam

from fedagent import (
    AsyncStrategy,
    Collaborative,
    FedAsync,
    FedBuff,
    Hierarchical,
    Robust,
    asynchronous,
)
from fedagent.admission.filters import Direction, NormBound
from fedagent.callbacks import Callback
from fedagent.errors import CheckpointError
from fedagent.journal import Checkpoints
from fedagent.mixing import ring
from fedagent.nodes.geography import Blocks, Links
from fedagent.privacy import Private
from fedagent.rules import ACE, CA2FL, FADAS, CentredClipping, FedAT, HeLoCo, Ringmaster
from fedagent.scheduling import DyLU, FedCompass, Paced, Tiers, Utility
from fedagent.simulation import Equal, Lognormal, Phones, Reliability
from fedagent.stopping import MaxUpdates
from fedagent.wire.records import digest
from tests.toy import client_app, run

NODES = 8
FLEETS = {
    "failures and silence": Reliability(failure_rate=0.2, silence_rate=0.1),
    "failure upon failure": Reliability(failure_rate=0.6),
}
FLEET = Lognormal(num_nodes=NODES, seed=3)


class Killed(BaseException):
    """What ends a process without a word; the loop catches nothing of the kind."""


class Kill(Callback):
    def __init__(self, at_update: int) -> None:
        self.at_update = at_update

    def on_settled(self, statistics, settlement):
        if statistics.num_updates == self.at_update:
            raise Killed


def fedcompass(**options):
    scheduler = FedCompass(min_steps=2, max_steps=8, learning_rate=0.05)
    return FedBuff(buffer_size=3, scheduler=scheduler, **options)


def robust(**options):
    filters = [NormBound(), Direction()]
    protection = Robust(CentredClipping(), filters=filters, max_influence=0.3)
    return FedBuff(buffer_size=3, robust=protection, **options)


STRATEGIES = {
    "fedbuff": lambda **o: FedBuff(buffer_size=3, **o),
    "fedasync": FedAsync,
    "robust": robust,
    "ca2fl": lambda **o: AsyncStrategy(CA2FL(buffer_size=3), **o),
    "fadas": lambda **o: AsyncStrategy(FADAS(buffer_size=3), **o),
    "ace": lambda **o: AsyncStrategy(ACE(), **o),
    "heloco": lambda **o: AsyncStrategy(HeLoCo(), **o),
    "fedat": lambda **o: AsyncStrategy(FedAT(), scheduler=Tiers(2, 3, learning_rate=0.05), **o),
    "ringmaster": lambda **o: AsyncStrategy(Ringmaster(), **o),
    "fedcompass": fedcompass,
    "hierarchical": lambda **o: Hierarchical(Blocks(2, NODES), links=Links(0.5), send_every=2, **o),
    "collaborative": lambda **o: Collaborative(mixing=ring(NODES), buffer_size=1, **o),
    "wrapped fedadam": lambda **o: asynchronous(FedAdam(eta=0.1), buffer_size=4, **o),
    "dylu": lambda **o: FedBuff(scheduler=DyLU(max_steps=8), **o),
    "utility": lambda **o: FedBuff(scheduler=Utility("loss"), **o),
    "paced": lambda **o: FedBuff(
        scheduler=Paced(learning_rate=0.05), **o | {"concurrency": "auto"}
    ),
    "by the clock": lambda **o: FedBuff(buffer_size=None, publish_every_s=4.0, **o),
    "private": lambda **o: AsyncStrategy(
        Private(FADAS(buffer_size=1), 3, epsilon_budget=20.0, tree_releases=2, seed=1), **o
    ),
    "queues at the nodes": lambda **o: FedBuff(buffer_size=3, prefetch=1, **o),
}


def ended(strategy, fleet):
    """Return all that a run leaves but for the seconds it took, and what later choices go by."""
    done = run(strategy, fleet, rounds=1_000)
    result, finder = done.result, strategy.proxy._dispatcher.slots._finder
    choices = finder and vars(finder), strategy.options.scheduler.state_dict()
    numbers = done.grid._engine._num_jobs, done.grid._engine._num_messages
    statistics = asdict(strategy.proxy.statistics) | {"wall_s": None}
    told = result.train_metrics_clientapp, result.evaluate_metrics_clientapp
    return digest(result.arrays), statistics, told, result.end, choices, numbers


def started(build, folder=None, callbacks=(), resume=False, **options):
    saving = Checkpoints(folder, "updates", every=7, resume=resume) if folder else None
    settings = {"concurrency": 4, "min_available_nodes": 1} | options
    conditions = settings.pop("stopping", [MaxUpdates(40)])
    return build(callbacks=callbacks, checkpoint=saving, stopping=conditions, **settings)


def killed(build, folder, fleet=FLEET, **options):
    with pytest.raises(Killed):
        run(started(build, folder, [Kill(26)], **options), fleet, rounds=1_000)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_run_ends_as_if_nothing_had_happened(name, tmp_path):
    build = STRATEGIES[name]
    killed(build, tmp_path)
    resumed = ended(started(build, tmp_path, resume=True), FLEET)
    assert resumed == ended(started(build), FLEET)


@pytest.mark.parametrize(
    "fleet",
    [
        *(Lognormal(num_nodes=NODES, seed=3, reliability=r) for r in FLEETS.values()),
        Phones(num_nodes=NODES, seed=3),
        Equal(num_nodes=NODES, jitter=0.0),
    ],
    ids=[*FLEETS, "nodes that come and go", "all that happens at the same moment"],
)
def test_failures_and_absences_come_back_as_they_were(fleet, tmp_path):
    build, silent = STRATEGIES["fedbuff"], {"fraction_evaluate": 0.0}
    killed(build, tmp_path, fleet, **silent)
    resumed = ended(started(build, tmp_path, resume=True, **silent), fleet)
    assert resumed == ended(started(build, **silent), fleet)


def test_saving_changes_nothing(tmp_path):
    build = STRATEGIES["fedbuff"]
    assert ended(started(build, tmp_path), FLEET) == ended(started(build), FLEET)


def test_a_run_may_die_again_and_again(tmp_path):
    build = STRATEGIES["fedasync"]
    killed(build, tmp_path)
    for at in (29, 34, 38):
        with pytest.raises(Killed):
            run(started(build, tmp_path, [Kill(at)], resume=True), FLEET, rounds=1_000)
    assert ended(started(build, tmp_path, resume=True), FLEET) == ended(started(build), FLEET)


def test_the_last_good_checkpoint_is_enough(tmp_path):
    build = STRATEGIES["fedbuff"]
    killed(build, tmp_path)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert ended(started(build, tmp_path, resume=True), FLEET) == ended(started(build), FLEET)


def test_a_run_that_is_over_goes_on_to_a_new_end(tmp_path):
    build = STRATEGIES["fedbuff"]
    ended(started(build, tmp_path), FLEET)
    longer = {"stopping": [MaxUpdates(55)]}
    resumed = ended(started(build, tmp_path, resume=True, **longer), FLEET)
    assert resumed == ended(started(build, **longer), FLEET)


def test_while_an_update_is_suspicious_nothing_is_saved_and_afterwards_it_is(tmp_path):
    def shout(partition, reply):  # its square overflows, and the model stays finite
        if partition != 5:
            return None
        huge = {"weight": torch.full((1, 4), 3e19), "bias": torch.zeros(1)}
        return RecordDict({**reply, "arrays": ArrayRecord(huge)})

    def outcome(strategy):
        run(strategy, FLEET, rounds=1_000, client=client_app(shout))
        return asdict(strategy.proxy.statistics) | {"wall_s": None}

    def build(**options):
        return FedBuff(buffer_size=3, server_learning_rate=1e-20, **options)

    with pytest.raises(Killed):
        outcome(started(build, tmp_path, [Kill(26)], fraction_evaluate=0.0))
    resumed = outcome(started(build, tmp_path, resume=True, fraction_evaluate=0.0))
    assert resumed == outcome(started(build, fraction_evaluate=0.0))


def test_another_model_and_another_version_say_so(tmp_path, monkeypatch):
    build = STRATEGIES["fedbuff"]
    killed(build, tmp_path)
    with pytest.raises(CheckpointError, match="of another model"):
        run(
            started(build, tmp_path, resume=True),
            FLEET,
            initial={"weight": torch.zeros(1, 3)},
            client=client_app(),
        )
    monkeypatch.setattr("fedagent.proxy.checkpointing.version", lambda name: "99")
    with pytest.raises(CheckpointError, match=r"another version of fedagent \(.*, here it is 99\)"):
        run(started(build, tmp_path, resume=True), FLEET)


def test_another_strategy_says_so(tmp_path):
    killed(STRATEGIES["fedbuff"], tmp_path)
    with pytest.raises(CheckpointError, match="of another rule"):
        run(started(STRATEGIES["fedasync"], tmp_path, resume=True), FLEET)


def test_what_is_saved_on_real_fleets_only_leaves_nothing_in_simulation(tmp_path):
    saving = Checkpoints(tmp_path, every=1, in_simulation=False)
    run(FedBuff(buffer_size=3, checkpoint=saving), FLEET, rounds=2)
    assert not list(tmp_path.iterdir())
