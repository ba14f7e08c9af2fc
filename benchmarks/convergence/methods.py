"""The methods that are compared, and the learning rates that are tried for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.convergence import quadratic
from fedagent import rules
from fedagent.rules import Rule
from fedagent.rules.staleness import constant, delay_adaptive, polynomial
from fedagent.scheduling import DyLU, FedCompass, Scheduler, Uniform
from fedagent.strategies.cutoff import Cutoff

NODES, CONCURRENCY, BUFFER, LOCAL_STEPS, UPDATES, TARGET = 100, 20, 10, 8, 2000, 0.88
CLIENT_RATES = (0.05, 0.1, 0.2, 0.4, 0.8)

MakeRule = Callable[[float], Rule]
"""Server learning rate -> rule."""


@dataclass(frozen=True)
class Method:
    """A rule, the server learning rates that are tried, and how many nodes it keeps at work."""

    rule: MakeRule
    server_rates: tuple[float, ...] = (1.0,)
    concurrency: int = CONCURRENCY

    @property
    def updates(self) -> int:
        """Updates a run may take: the same number for each slot."""
        return UPDATES * self.concurrency // CONCURRENCY


BASELINES = {
    "fedavg": Cutoff(),
    "fedavg_deadline": Cutoff(deadline_s=4.0),
    "fedavg_overselect": Cutoff(over_selection=1.3),
    "fedavg_percentile": Cutoff(deadline_percentile=80.0),
}
"""Synchronous rounds, by when they end. 4 s are half a median job, the best power of two."""
SMALL = (0.05, 0.1, 0.2)  # rules that step on every arrival, 1 / concurrency and around
DIGITS: dict[str, Method] = {
    "fedasync": Method(rules.FedAsync, (0.1, 0.3, 0.6)),
    "fedbuff": Method(lambda rate: rules.FedBuff(BUFFER, rate), (0.5, 1.0)),
    "asgd": Method(rules.ASGD, SMALL),
    "delay_adaptive": Method(
        lambda rate: rules.ASGD(rate, partial(delay_adaptive, concurrency=CONCURRENCY)), SMALL
    ),
    "ringmaster": Method(lambda rate: rules.Ringmaster(CONCURRENCY, rate), SMALL),
    "rennala": Method(lambda rate: rules.Rennala(BUFFER, rate)),
    "malenia": Method(lambda rate: rules.Malenia(NODES, None, rate), concurrency=NODES),
    "ringleader": Method(lambda rate: rules.Ringleader(NODES, rate), SMALL, concurrency=NODES),
    "delayed_nesterov": Method(
        lambda rate: rules.DelayedNesterov(CONCURRENCY, 0.9, rate), (0.3, 0.7, 1.0)
    ),
    "heloco": Method(rules.HeLoCo, SMALL),
    "look_ahead": Method(lambda rate: rules.HeLoCo(rate, keep_cosine=-1.0), SMALL),
    "ringmaster_lmo": Method(lambda rate: rules.RingmasterLMO(None, rate), (0.003, 0.01, 0.03)),
    "rescaled_asgd": Method(lambda rate: rules.Rescaled(rules.ASGD(rate, constant)), SMALL),
    "rescaled_fedbuff": Method(
        lambda rate: rules.Rescaled(rules.FedBuff(BUFFER, rate, constant, weighted=False)),
        (0.5, 1.0),
    ),
    "dc_asgd": Method(lambda rate: rules.DCASGD(server_learning_rate=rate), SMALL),
    "ca2fl": Method(lambda rate: rules.CA2FL(BUFFER, rate, NODES), (0.5, 1.0)),
    "ace": Method(lambda rate: rules.ACE(NODES, rate), (0.02, 0.05, 0.1)),
    "aced": Method(lambda rate: rules.ACE(NODES, rate, 100), (0.02, 0.05, 0.1)),
    "area": Method(lambda _: rules.AREA(NODES)),
    "fadas": Method(lambda rate: rules.FADAS(5, rate), (1e-3, 3e-3, 1e-2)),
    "port": Method(lambda _: rules.PORT(BUFFER)),
    "fedstaleweight": Method(lambda rate: rules.FedStaleWeight(BUFFER, rate), (0.5, 1.0)),
}
QUADRATIC: dict[str, Callable[[], Rule]] = {
    "asgd": rules.ASGD,
    "delay_adaptive": lambda: rules.ASGD(
        staleness=partial(delay_adaptive, concurrency=quadratic.NODES)
    ),
    "ringmaster": lambda: rules.Ringmaster(quadratic.NODES),
    "rennala": lambda: rules.Rennala(quadratic.BATCH),
    "fedbuff": lambda: rules.FedBuff(BUFFER, staleness=polynomial),
    "dc_asgd": rules.DCASGD,
}
SCHEDULERS: dict[str, Callable[[int, int], tuple[Scheduler, Rule]]] = {
    "uniform": lambda seed, k: (Uniform(20, seed=seed), rules.FedBuff(k)),
    "dylu": lambda seed, k: (DyLU(50, 2, seed=seed), rules.FedBuff(k)),
    "dylu + fednova": lambda seed, k: (DyLU(50, 2, seed=seed), rules.FedNova(k)),
    "fedcompass": lambda seed, k: (FedCompass(4, 100, seed=seed), rules.FedBuff(k)),
    "fedcompass + fednova": lambda seed, k: (FedCompass(4, 100, seed=seed), rules.FedNova(k)),
}
"""(seed, buffer size) -> scheduler and rule."""
