"""Who learns from whom: the weights c_ik, and the collaborative model that uses them.

A rule of `fedagent.rules` keeps one model; `Mixing` keeps one per node. Its weights are a graph's
(`metropolis`, and by name `complete`, `ring`, `torus`, `star`, `erdos_renyi`), those of groups,
of two nodes, of a file, or learned.
"""

from fedagent.mixing.clusters import adjusted_rand_index, average_linkage
from fedagent.mixing.learned import LearnedMixing
from fedagent.mixing.matrix import MixingMatrix
from fedagent.mixing.rule import Mixing
from fedagent.mixing.topologies import (
    complete,
    erdos_renyi,
    from_file,
    grouped,
    metropolis,
    pair,
    ring,
    star,
    torus,
)
from fedagent.mixing.weights import Weights

__all__ = [
    "LearnedMixing",
    "Mixing",
    "MixingMatrix",
    "Weights",
    "adjusted_rand_index",
    "average_linkage",
    "complete",
    "erdos_renyi",
    "from_file",
    "grouped",
    "metropolis",
    "pair",
    "ring",
    "star",
    "torus",
]
