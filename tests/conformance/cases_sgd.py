"""The SGD family beside its oracles; `cases` joins them into CASES."""

from functools import partial

import numpy as np

from fedagent.rules import (
    ASGD,
    DCASGD,
    DelayedNesterov,
    FedBuff,
    FedNova,
    HeLoCo,
    Malenia,
    Rennala,
    Rescaled,
    Ringleader,
    Ringmaster,
    RingmasterLMO,
    staleness,
)
from tests.conformance import oracle, oracle_sgd
from tests.conformance.case import WEIGHTS, Case

ASGD_WEIGHTS = WEIGHTS | {
    "harmonic": (lambda: partial(staleness.harmonic, beta=0.3), oracle_sgd.harmonic(beta=0.3)),
    "threshold": (lambda: partial(staleness.threshold, limit=4), oracle_sgd.threshold(limit=4)),
    "delay_adaptive": (
        lambda: partial(staleness.delay_adaptive, concurrency=3),
        oracle_sgd.delay_adaptive(n=3),
    ),
}


def asgd(weight: str, eta: float = 0.7) -> Case:
    s, formula = ASGD_WEIGHTS[weight]
    return Case(
        "asgd",
        weight,
        lambda: ASGD(eta, s()),
        lambda: oracle_sgd.asgd(eta, formula),
        buffer_size=1,
    )


def ringmaster(max_staleness: int | None, eta: float = 0.7) -> Case:
    R = float("inf") if max_staleness is None else max_staleness
    return Case(
        "ringmaster",
        f"R{max_staleness}",
        lambda: Ringmaster(max_staleness, eta),
        lambda: oracle_sgd.ringmaster(R, eta),
        buffer_size=None,
        scripted_bases=False,
    )


def rennala(buffer_size: int | None, eta: float = 0.7) -> Case:
    return Case(
        "rennala",
        f"S{buffer_size}",
        lambda: Rennala(buffer_size, eta),
        lambda: oracle_sgd.rennala(buffer_size, eta),
        buffer_size=None,
        scripted_bases=False,
    )


def malenia(num_nodes: int, batch_size: int | None, eta: float = 0.7) -> Case:
    S = num_nodes if batch_size is None else batch_size
    return Case(
        "malenia",
        f"n{num_nodes}-S{batch_size}",
        lambda: Malenia(num_nodes, batch_size, eta),
        lambda: oracle_sgd.malenia(num_nodes, S, eta),
        buffer_size=None,
        scripted_bases=False,
    )


def ringleader(num_nodes: int, eta: float = 0.3) -> Case:
    return Case(
        "ringleader",
        f"n{num_nodes}",
        lambda: Ringleader(num_nodes, eta),
        lambda: oracle_sgd.ringleader(num_nodes, eta),
        buffer_size=None,
        scripted_bases=False,
    )


def delayed_nesterov(period: int, momentum: float, eta: float = 0.7) -> Case:
    return Case(
        "delayed_nesterov",
        f"N{period}-beta{momentum}",
        lambda: DelayedNesterov(period, momentum, eta),
        lambda: oracle_sgd.delayed_nesterov(period, momentum, eta),
        buffer_size=1,
    )


def heloco(keep_cosine: float, momentum: float = 0.9, eta: float = 0.7) -> Case:
    return Case(
        "heloco",
        f"c{keep_cosine}-beta{momentum}",
        lambda: HeLoCo(eta, momentum, keep_cosine),
        lambda: oracle_sgd.heloco(eta, momentum, keep_cosine),
        buffer_size=1,
        is_stable=keep_cosine == -1,
    )


def ringmaster_lmo(
    max_staleness: int | None, a: float, shrink_after: float | None = None, eta: float = 0.7
) -> Case:
    R = float("inf") if max_staleness is None else max_staleness
    return Case(
        "ringmaster_lmo",
        f"R{max_staleness}-a{a}-k{shrink_after}",
        lambda: RingmasterLMO(max_staleness, eta, 1.0 - a, shrink_after),
        lambda: oracle_sgd.ringmaster_lmo(R, eta, a, shrink_after or np.inf),
        buffer_size=None,
        scripted_bases=False,
        is_stable=False,
    )


def rescaled_asgd(max_weight: float, eta: float = 0.7) -> Case:
    return Case(
        "rescaled",
        f"asgd-w{max_weight}",
        lambda: Rescaled(ASGD(eta), max_weight),
        lambda: oracle_sgd.rescaled(oracle_sgd.asgd(eta, lambda tau: 1.0), max_weight),
        buffer_size=1,
    )


def rescaled_fedbuff(max_weight: float, size: int | None = 3, eta: float = 0.7) -> Case:
    return Case(
        "rescaled",
        f"fedbuff-w{max_weight}",
        lambda: Rescaled(FedBuff(size, eta), max_weight),
        lambda: oracle_sgd.rescaled(
            oracle.fedbuff(size, eta, oracle.polynomial(a=0.5), "buffer", True), max_weight
        ),
        buffer_size=size,
    )


def dc_asgd(adaptive: bool, ema: float = 0.95, lambda_: float = 0.03, eta: float = 0.7) -> Case:
    return Case(
        "dc_asgd",
        f"adaptive-ema{ema}" if adaptive else "constant",
        lambda: DCASGD(lambda_, adaptive, ema, eta),
        lambda: oracle_sgd.dc_asgd(lambda_, adaptive, ema, eta),
        buffer_size=1,
        scale=2.0**-20,
    )


def fednova(weight: str, weighted: bool, size: int | None = 3) -> Case:
    s, formula = WEIGHTS[weight]
    eta = 0.7
    return Case(
        "fednova",
        f"{weight}-{'examples' if weighted else 'equal'}",
        lambda: FedNova(size, eta, s(), weighted),
        lambda: oracle_sgd.fednova(size, eta, formula, weighted),
        buffer_size=size,
    )


CASES_SGD = [
    *(asgd(weight) for weight in ASGD_WEIGHTS),
    *(ringmaster(R) for R in (None, 1, 3)),
    *(rennala(S) for S in (1, 3)),
    *(malenia(n, S) for n, S in ((1, None), (3, None), (4, 6), (3, 1))),
    *(ringleader(n) for n in (1, 2, 3, 4)),
    *(delayed_nesterov(N, beta) for N, beta in ((1, 0.5), (3, 0.9), (4, 0.5), (3, 0.0))),
    *(heloco(c, beta) for c, beta in ((0.2, 0.9), (0.8, 0.5), (0.0, 0.9), (-1.0, 0.9))),
    *(ringmaster_lmo(R, a) for R, a in ((None, 0.3), (3, 0.3), (None, 0.6))),
    *(ringmaster_lmo(R, 0.3, k_0) for R, k_0 in ((None, 4.0), (3, 10.0))),
    *(rescaled_asgd(w) for w in (1.3, float("inf"))),
    *(rescaled_fedbuff(w) for w in (1.3, float("inf"))),
    *(dc_asgd(adaptive=True, ema=ema) for ema in (0.95, 0.0)),
    dc_asgd(adaptive=False),
    *(
        fednova(weight, weighted)
        for weight in ("constant", "polynomial")
        for weighted in (True, False)
    ),
]
