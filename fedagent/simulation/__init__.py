"""A deterministic simulation of a heterogeneous fleet, on one machine."""

from fedagent.nodes.geography import Geography, Links
from fedagent.simulation.fleets import (
    Equal,
    Fleet,
    HalfNormal,
    Lognormal,
    Pareto,
    Scripted,
    Straggler,
    TwoClass,
)
from fedagent.simulation.grid import SimulationGrid
from fedagent.simulation.phones import PhoneLinks, Phones
from fedagent.simulation.profiles import NodeProfile, Reliability
from fedagent.simulation.run import SimulationResult, run_simulation
from fedagent.simulation.runtime import Runtime
from fedagent.simulation.trace import Trace

__all__ = [
    "Equal",
    "Fleet",
    "Geography",
    "HalfNormal",
    "Links",
    "Lognormal",
    "NodeProfile",
    "Pareto",
    "PhoneLinks",
    "Phones",
    "Reliability",
    "Runtime",
    "Scripted",
    "SimulationGrid",
    "SimulationResult",
    "Straggler",
    "Trace",
    "TwoClass",
    "run_simulation",
]
