"""The limits of settings, on either side: the last value that works, the first that does not."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import pytest

from fedagent import errors, stopping
from fedagent.errors import ConfigurationError
from fedagent.mixing import LearnedMixing, Mixing, complete, erdos_renyi, grouped, ring, star, torus
from fedagent.mixing.topologies import metropolis
from fedagent.nodes.backoff import Backoff
from fedagent.nodes.geography import Blocks, ByAttribute, ByMeasure, Links, Listed
from fedagent.rules import (
    ACE,
    AREA,
    ASGD,
    CA2FL,
    DCASGD,
    FADAS,
    PORT,
    DelayedNesterov,
    FedAsync,
    FedBuff,
    FedNova,
    FedStaleWeight,
    HeLoCo,
    Hierarchical,
    Malenia,
    Periodic,
    Rennala,
    Rescaled,
    Ringleader,
    Ringmaster,
    RingmasterLMO,
    staleness,
)
from fedagent.scheduling import (
    DyLU,
    FairnessCap,
    FedCompass,
    NodeSettings,
    Paced,
    PerNode,
    Tiers,
    Uniform,
    Utility,
)
from fedagent.scheduling.concurrency import AutoConcurrency
from fedagent.scheduling.cost import Costs
from fedagent.scheduling.speed import Speeds
from fedagent.strategies.cutoff import Cutoff

NAN = math.nan


@dataclass(frozen=True)
class Limit:
    """A setting with the values that stand at its limits and beyond."""

    setting: str
    build: Callable[[Any], object]
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]

    def check(self) -> None:
        """Fail unless exactly the right values are refused, and the error names the setting."""
        for value in self.accepted:
            self.build(value)
        for value in self.refused:
            with pytest.raises(ConfigurationError, match=re.escape(self.setting)):
                self.build(value)


def at_least(least: int, setting: str, build: Callable[[Any], object], *also: Any) -> Limit:
    return Limit(setting, build, (least, least + 1, *also), (least - 1, least - 2))


def positive(setting: str, build: Callable[[Any], object]) -> Limit:
    return Limit(setting, build, (1e-9, 0.5, 3.0), (0.0, -0.5, -3.0, NAN))


def not_negative(setting: str, build: Callable[[Any], object]) -> Limit:
    return Limit(setting, build, (0.0, 0.5, 3.0), (-1e-9, -0.5, -3.0, NAN))


def share(setting: str, build: Callable[[Any], object], zero: bool, one: bool) -> Limit:
    """A number from 0 to 1; `zero` and `one` say whether the ends belong to it."""
    ends = [(0.0, zero), (1.0, one)]
    return Limit(
        setting,
        build,
        (1e-9, 0.5, 1 - 1e-9, *(end for end, belongs in ends if belongs)),
        (-1e-9, 1 + 1e-9, -2.0, 2.0, NAN, *(end for end, belongs in ends if not belongs)),
    )


def cosine(setting: str, build: Callable[[Any], object]) -> Limit:
    return Limit(setting, build, (-1.0, -0.5, 0.0, 1.0), (-1 - 1e-9, 1 + 1e-9, NAN))


SIZES = [
    FedBuff,
    CA2FL,
    FADAS,
    FedNova,
    FedStaleWeight,
    PORT,
    Rennala,
]
RATES = [
    lambda eta: ACE(1, server_learning_rate=eta),
    lambda eta: ASGD(server_learning_rate=eta),
    lambda eta: CA2FL(server_learning_rate=eta),
    lambda eta: DCASGD(server_learning_rate=eta),
    lambda eta: DelayedNesterov(server_learning_rate=eta),
    lambda eta: FADAS(server_learning_rate=eta),
    lambda eta: FedBuff(server_learning_rate=eta),
    lambda eta: FedNova(server_learning_rate=eta),
    lambda eta: FedStaleWeight(server_learning_rate=eta),
    lambda eta: HeLoCo(server_learning_rate=eta),
    lambda eta: Malenia(1, server_learning_rate=eta),
    lambda eta: Rennala(server_learning_rate=eta),
    lambda eta: Ringleader(1, server_learning_rate=eta),
    lambda eta: Ringmaster(server_learning_rate=eta),
    lambda eta: RingmasterLMO(server_learning_rate=eta),
]
POPULATIONS = [
    ACE,
    AREA,
    lambda n: CA2FL(num_nodes=n),
    Malenia,
    Ringleader,
]


def hierarchy(**settings: Any) -> Hierarchical:
    return Hierarchical(Blocks(2, 4), lambda: FedBuff(2), ASGD(), **settings)


LIMITS = [
    *(at_least(1, "buffer_size", build, None) for build in SIZES),
    *(positive("server_learning_rate", build) for build in RATES),
    *(at_least(1, "num_nodes", build) for build in POPULATIONS),
    share("alpha", lambda v: FedAsync(alpha=v), zero=False, one=True),
    at_least(0, "max_age", lambda v: ACE(1, max_age=v), None),
    at_least(1, "publish_every", lambda v: AREA(1, publish_every=v)),
    not_negative("lambda_", lambda v: DCASGD(lambda_=v)),
    share("ema", lambda v: DCASGD(ema=v), zero=True, one=False),
    at_least(1, "period", lambda v: DelayedNesterov(period=v)),
    share("momentum", lambda v: DelayedNesterov(momentum=v), zero=True, one=False),
    share("momentum", lambda v: HeLoCo(momentum=v), zero=True, one=False),
    cosine("keep_cosine", lambda v: HeLoCo(keep_cosine=v)),
    Limit("max_weight", lambda v: Rescaled(ASGD(), v), (1.0, 5.0, math.inf), (1 - 1e-9, 0.0, NAN)),
    at_least(1, "max_staleness", Ringmaster, None),
    at_least(1, "max_staleness", RingmasterLMO, None),
    share("momentum", lambda v: RingmasterLMO(momentum=v), zero=True, one=False),
    share("beta1", lambda v: FADAS(beta1=v), zero=True, one=False),
    share("beta2", lambda v: FADAS(beta2=v), zero=True, one=False),
    positive("eps", lambda v: FADAS(eps=v)),
    at_least(0, "max_staleness", lambda v: FADAS(max_staleness=v)),
    at_least(1, "batch_size", lambda v: Malenia(1, batch_size=v), None),
    not_negative("w_c", lambda v: PORT(w_c=v)),
    not_negative("w_s", lambda v: PORT(w_s=v)),
    Limit("w_c", lambda v: PORT(w_c=v, w_s=0.0), (1e-9,), (0.0,)),
    Limit("w_s", lambda v: PORT(w_c=0.0, w_s=v), (1e-9,), (0.0,)),
    positive("beta", lambda v: PORT(beta=v)),
    positive("publish_every_s", lambda v: Periodic(FedBuff(None), v)),
    Limit(
        "publish_every_s",
        lambda rule: Periodic(rule, 1.0),
        (ASGD(), FedAsync(), FedBuff(3), AREA(2)),
        (Malenia(2), Rennala(2)),
    ),
    at_least(1, "send_every", lambda v: hierarchy(send_every=v)),
    share("merge_weight", lambda v: hierarchy(merge_weight=v), zero=False, one=True),
    Limit("root_region", lambda v: hierarchy(root_region=v), (0, 1), (-1, 2, 3)),
    at_least(1, "local_steps", Uniform, None),
    positive("learning_rate", lambda v: Uniform(1, v)),
    at_least(1, "local_steps", lambda v: NodeSettings(local_steps=v), None),
    positive("learning_rate", lambda v: NodeSettings(learning_rate=v)),
    at_least(1, "batch_size", lambda v: NodeSettings(batch_size=v), None),
    Limit("prefetch", lambda v: NodeSettings(prefetch=v), (None, 0, 1, 3), (-1, 4, 5)),
    Limit(
        "2 classes",
        lambda v: PerNode(Listed([[0], [1]]), [NodeSettings()] * v),
        (2,),
        (0, 1, 3),
    ),
    Limit("max_ratio", lambda v: FairnessCap(Uniform(), v), (1.0, math.inf), (1 - 1e-9, 0.0, NAN)),
    not_negative("beta", lambda v: Utility(beta=v)),
    share("exploration", lambda v: Utility(exploration=v), zero=True, one=True),
    at_least(1, "candidates", lambda v: Utility(candidates=v)),
    share("ema", Speeds, zero=False, one=True),
    not_negative("staleness", AutoConcurrency),
    share("ema", Costs, zero=False, one=True),
    at_least(1, "num_tiers", Tiers),
    at_least(1, "cohort", lambda v: Tiers(cohort=v)),
    at_least(1, "first_steps", lambda v: Tiers(first_steps=v), None),
    share("ema", lambda v: Paced(ema=v), zero=False, one=True),
    positive("pace_s", lambda v: Paced(pace_s=v)),
    Limit("first_steps", lambda v: Paced(first_steps=v, max_steps=5), (1, 5), (0, -1, 6, 7)),
    Limit("typical_steps", lambda v: Paced(typical_steps=v, max_steps=5), (1, 5), (0, -1, 6, 7)),
    share("communication_share", lambda v: Paced(communication_share=v), zero=False, one=True),
    Limit("min_steps", lambda v: FedCompass(v, 5), (1, 5), (0, -1, 6, 7)),
    Limit("slack", lambda v: FedCompass(slack=v), (1.0, 2.0), (1 - 1e-9, 0.0, NAN)),
    Limit("first_steps", lambda v: DyLU(first_steps=v, max_steps=5), (1, 5), (0, -1, 6, 7)),
    Limit("num_regions", lambda v: Blocks(v, 4), (1, 4), (0, -1, 5, 6)),
    at_least(1, "num_regions", ByAttribute),
    Limit("members", Listed, ([[0]], [[0], [1]]), ([],)),
    Limit("more than one", Listed, ([[0, 1], [2]],), ([[0, 1], [1]], [[3, 3]])),
    Limit(
        "limits",
        lambda v: ByMeasure(v, key="s"),
        ([], [1.0], [1.0, 2.0]),
        ([1.0, 1.0], [2.0, 1.0], [math.inf], [NAN]),
    ),
    Limit("base_s", lambda v: Backoff(base_s=v, cap_s=2.0), (1.0, 2.0), (2.0 + 1e-9, 3.0)),
    at_least(1, "storm", lambda v: Backoff(storm=v)),
    Limit("base_s", lambda v: Backoff(base_s=v), (1e-9,), (0.0, -1.0, NAN, math.inf)),
    Limit("cap_s", lambda v: Backoff(cap_s=v), (1.0, 1e9), (1 - 1e-9, 0.0, NAN, math.inf)),
    Limit("latency_s", Links, (0.0, 1e-9, 9.0), (-1e-9, -1.0, NAN, math.inf)),
    *(
        Limit(
            setting,
            lambda v, name=setting: Links(**{name: v}),
            (1e-9, 1.0, math.inf),
            (0.0, -1.0, NAN),
        )
        for setting in ("download_bytes_per_s", "upload_bytes_per_s")
    ),
    at_least(1, "num_nodes", LearnedMixing),
    at_least(1, "warmup", lambda v: LearnedMixing(4, warmup=v)),
    at_least(1, "sketch_size", lambda v: LearnedMixing(4, sketch_size=v)),
    cosine("threshold", lambda v: LearnedMixing(4, v)),
    at_least(1, "buffer_size", lambda v: Mixing(ring(3), buffer_size=v), None),
    share("consensus", lambda v: Mixing(ring(3), consensus=v), zero=True, one=True),
    share("probability", lambda v: erdos_renyi(4, v), zero=True, one=True),
    Limit("groups", lambda v: grouped(v, 4), (1, 2, 4), (0, -1, 5)),
    *(at_least(1, "num_nodes", build) for build in (complete, ring, star, erdos_renyi)),
    Limit("torus", torus, (1, 2, 4), (0, -1)),
    Limit(
        "undirected graph",
        metropolis,
        (nx.path_graph(3),),
        (nx.path_graph(3, create_using=nx.DiGraph), nx.path_graph([1, 2, 3])),
    ),
    *(
        at_least(0, setting, condition)
        for setting, condition in [
            ("rounds", stopping.MaxRounds),
            ("versions", stopping.MaxVersions),
            ("updates", stopping.MaxUpdates),
            ("seconds", stopping.MaxSeconds),
        ]
    ),
    at_least(1, "patience", lambda v: stopping.Plateau(patience=v)),
    not_negative("min_delta", lambda v: stopping.Plateau(min_delta=v)),
    Limit(
        "s(0)",
        lambda v: staleness.validated(lambda tau: v / (1 + tau)),
        (1.0,),
        (1 - 1e-9, 1 + 1e-9, 0.0, NAN),
    ),
    Limit(
        "must fall",
        lambda v: staleness.validated(lambda tau: 1.0 if tau == 0 else v),
        (1.0, 0.5, 0.0),
        (1 + 1e-9, -1e-9, NAN),
    ),
    Limit(  # a weight that rises after one age
        "must fall",
        lambda v: staleness.validated(lambda tau: 1.0 if tau == 0 else 0.1 if tau == v else 0.5),
        (1000, None),
        (1, 2, 5, 10, 100),
    ),
]
LIMITS += [
    at_least(1, "over_selection", lambda v: Cutoff(over_selection=v), None, 1.3),
    positive("deadline_s", lambda v: Cutoff(deadline_s=v)),
    Limit(
        "deadline_percentile",
        lambda v: Cutoff(deadline_percentile=v),
        (1e-9, 80, 100, None),
        (0, -1, 100.1, NAN, math.inf),
    ),
]
NAMES = [f"{n}-{limit.setting.replace(' ', '-')}" for n, limit in enumerate(LIMITS)]


@pytest.mark.filterwarnings("ignore:Mixing")  # unconnected graphs
@pytest.mark.parametrize("limit", LIMITS, ids=NAMES)
def test_a_setting_works_up_to_its_limit_and_is_refused_beyond(limit):
    limit.check()


def holds_nothing(condition, message):
    pass


@pytest.mark.filterwarnings("ignore:Mixing")
@pytest.mark.parametrize("limit", LIMITS, ids=NAMES)
def test_a_limit_that_the_code_no_longer_holds_is_noticed(limit, monkeypatch):
    monkeypatch.setattr(errors.require, "__code__", holds_nothing.__code__)
    # It is accepted, or makes trouble of another kind.
    with pytest.raises((pytest.fail.Exception, Exception)):
        limit.check()
