"""A deterministic simulation of a heterogeneous fleet, on one machine."""

from fedagent.links import Links
from fedagent.simulation.fleet import (
    Equal,
    Fleet,
    Geography,
    HalfNormal,
    Lognormal,
    NodeProfile,
    Pareto,
    Reliability,
    Scripted,
    Straggler,
    TwoClass,
)
from fedagent.simulation.grid import SimulationGrid
from fedagent.simulation.run import SimulationResult, run_simulation
from fedagent.simulation.runtime import Runtime

__all__ = [
    "Equal",
    "Fleet",
    "Geography",
    "HalfNormal",
    "Links",
    "Lognormal",
    "NodeProfile",
    "Pareto",
    "Reliability",
    "Runtime",
    "Scripted",
    "SimulationGrid",
    "SimulationResult",
    "Straggler",
    "TwoClass",
    "run_simulation",
]
