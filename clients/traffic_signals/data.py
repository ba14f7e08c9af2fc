"""RESCO's road networks and an hour of their demand (Ault and Sharon, NeurIPS 2021), by SUMO.

They lie inside the package sumo-rl, of which nothing is imported; libsumo simulates them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from os import devnull
from typing import Any

from fedagent.errors import ConfigurationError
from fedagent.tasks import Package

SCENARIOS = (
    "cologne1",
    "cologne3",
    "cologne8",
    "ingolstadt1",
    "ingolstadt7",
    "ingolstadt21",
)
UPSTREAM_M = 150.0
"""How far a signal sees: some lanes begin 20 m before the stop line, their queue does not."""

_SUMO_RL = Package("sumo-rl", "The networks of RESCO", "fedagent[traffic_signals]")
_LIBSUMO = Package("libsumo", "The simulator of traffic", "fedagent[traffic_signals]")


@dataclass(frozen=True)
class Signal:
    """One intersection's signal.

    Attributes
    ----------
    name : of SUMO's.
    phases : a letter per link (G, g: may go; r: may not) for every phase without yellow.
    lanes : per phase, the lanes that it lets go.
    upstream : per phase, the lanes that lead to these, up to `UPSTREAM_M` and the next signal.
    """

    name: str
    phases: tuple[str, ...]
    lanes: tuple[tuple[str, ...], ...]
    upstream: tuple[tuple[str, ...], ...]


@contextmanager
def simulation(scenario: str, seed: int) -> Iterator[Any]:
    """Start a scenario and yield libsumo, which holds one simulation per process; close it.

    Raises
    ------
    ConfigurationError
        If this process has one already.
    DataUnavailableError
        If libsumo or the networks are missing.
    """
    path = _SUMO_RL.path(f"sumo_rl/nets/RESCO/{scenario}/{scenario}.sumocfg")
    libsumo = _LIBSUMO.module("libsumo")
    if libsumo.isLoaded():
        raise ConfigurationError(
            "libsumo holds one simulation per process and has one; let this process end it first, "
            "or run nodes in processes of their own (runtime=processes)."
        )
    quiet = ["--no-step-log", "--no-warnings", "--tripinfo-output", devnull]
    # A vehicle that SUMO takes away because it waited for long would end its wait for free.
    patient = ["--time-to-teleport", "-1"]
    libsumo.start(["sumo", "-c", str(path), "--seed", str(seed), *quiet, *patient])
    try:
        yield libsumo
    finally:
        libsumo.close()


@lru_cache(maxsize=8)  # once per process
def load(scenario: str) -> tuple[Signal, ...]:
    """Return a scenario's signals that have a choice of phases, by name."""
    with simulation(scenario, 0) as sumo:
        controlled = {
            lane for name in sumo.trafficlight.getIDList() for lane in _lanes_by_link(sumo, name)
        }
        before = _predecessors(sumo)
        found = [_signal(sumo, name, before, controlled) for name in sumo.trafficlight.getIDList()]
    return tuple(signal for signal in sorted(found, key=lambda s: s.name) if len(signal.phases) > 1)


def _lanes_by_link(sumo: Any, name: str) -> list[str]:
    links = sumo.trafficlight.getControlledLinks(name)
    return [link[0][0] if link else "" for link in links]


def _predecessors(sumo: Any) -> dict[str, list[str]]:
    before: dict[str, list[str]] = {}
    for lane in sumo.lane.getIDList():
        if not lane.startswith(":"):  # those lie inside a junction
            for link in sumo.lane.getLinks(lane):
                before.setdefault(link[0], []).append(lane)
    return before


def _signal(sumo: Any, name: str, before: dict[str, list[str]], controlled: set[str]) -> Signal:
    programme = sumo.trafficlight.getAllProgramLogics(name)[0]
    states = [phase.state for phase in programme.phases]
    phases = tuple(s for s in dict.fromkeys(states) if "y" not in s and "g" in s.lower())
    by_link = _lanes_by_link(sumo, name)
    lanes = [
        {lane for lane, letter in zip(by_link, phase, strict=True) if letter in "Gg" and lane}
        for phase in phases
    ]

    def leading_to(lane: str, metres: float) -> set[str]:
        left = metres - sumo.lane.getLength(lane)
        nearer = set(before.get(lane, ())) - controlled if left > 0 else set()
        return nearer.union(*(leading_to(one, left) for one in nearer))

    upstream = [set().union(*(leading_to(lane, UPSTREAM_M) for lane in of)) for of in lanes]
    return Signal(
        name,
        phases,
        tuple(tuple(sorted(of)) for of in lanes),
        tuple(tuple(sorted(of)) for of in upstream),
    )
