"""The cases of the rules whose oracles are in `oracle_memory`."""

from fedagent.rules import ACE, AREA, CA2FL, FADAS, PORT, FedStaleWeight
from tests.conformance import oracle_memory as oracle
from tests.conformance.case import Case

SIZE: int | None = 3
ETA = 0.7


def ca2fl(num_nodes: int, size: int | None = SIZE) -> Case:
    return Case(
        "ca2fl",
        f"n{num_nodes}",
        lambda: CA2FL(size, ETA, num_nodes),
        lambda: oracle.ca2fl(size, ETA, num_nodes),
        buffer_size=size,
    )


def ace(num_nodes: int, max_age: int | None) -> Case:
    return Case(
        "ace" if max_age is None else "aced",
        f"n{num_nodes}" if max_age is None else f"age{max_age}",
        lambda: ACE(num_nodes, ETA, max_age),
        lambda: oracle.ace(num_nodes, ETA, max_age),
        buffer_size=1 if max_age is None else None,
    )


def area(num_nodes: int, publish_every: int) -> Case:
    return Case(
        "area",
        f"n{num_nodes}-every{publish_every}",
        lambda: AREA(num_nodes, publish_every),
        lambda: oracle.area(num_nodes, publish_every),
        buffer_size=publish_every,
    )


def fadas(
    settings: str,
    eta: float,
    beta1: float,
    beta2: float,
    eps: float,
    tau_c: int,
    size: int | None = SIZE,
) -> Case:
    return Case(
        "fadas",
        settings,
        lambda: FADAS(size, eta, beta1, beta2, eps, tau_c),
        lambda: oracle.fadas(size, eta, beta1, beta2, eps, tau_c),
        buffer_size=size,
        is_stable=eps >= eta,
    )


def port(w_c: float, w_s: float, beta: float, size: int | None = SIZE) -> Case:
    return Case(
        "port",
        f"c{w_c:g}-s{w_s:g}-beta{beta:g}",
        lambda: PORT(size, w_c, w_s, beta),
        lambda: oracle.port(size, w_c, w_s, beta),
        buffer_size=size,
        is_stable=w_c == 0,
    )


def fedstaleweight(average: bool, size: int | None = SIZE) -> Case:
    return Case(
        "fedstaleweight",
        "average" if average else "own",
        lambda: FedStaleWeight(size, ETA, average),
        lambda: oracle.fedstaleweight(size, ETA, average),
        buffer_size=size,
    )


CASES = [
    ca2fl(num_nodes=5),
    ca2fl(num_nodes=2),  # more nodes answer than were announced
    ace(num_nodes=5, max_age=None),
    ace(num_nodes=1, max_age=None),
    ace(num_nodes=5, max_age=0),
    ace(num_nodes=5, max_age=4),
    area(num_nodes=5, publish_every=3),
    area(num_nodes=2, publish_every=1),
    fadas("default", 1e-3, 0.9, 0.99, 1e-8, 1),
    fadas("smooth", 0.7, 0.5, 0.75, 1.0, 1),
    fadas("patient", 0.7, 0.0, 0.0, 1.0, 3),
    port(w_c=1, w_s=3, beta=10),
    port(w_c=1, w_s=0, beta=10),
    port(w_c=0, w_s=1, beta=2),
    fedstaleweight(average=True),
    fedstaleweight(average=False),
]
