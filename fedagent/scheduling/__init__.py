"""Schedulers: which node works next, with which B_k and M_k."""

from fedagent.nodes.eligible import Eligible
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler
from fedagent.scheduling.concurrency import AutoConcurrency
from fedagent.scheduling.dylu import DyLU
from fedagent.scheduling.fairness import FairnessCap
from fedagent.scheduling.fedcompass import FedCompass
from fedagent.scheduling.paced import Paced
from fedagent.scheduling.per_node import NodeSettings, PerNode
from fedagent.scheduling.speed import Speeds
from fedagent.scheduling.tiers import Tiers
from fedagent.scheduling.uniform import RoundRobin, Uniform
from fedagent.scheduling.utility import Utility

__all__ = [
    "Assignment",
    "AutoConcurrency",
    "DyLU",
    "Eligible",
    "FairnessCap",
    "FedCompass",
    "IdleNodes",
    "NodeSettings",
    "Observation",
    "Paced",
    "PerNode",
    "RoundRobin",
    "Scheduler",
    "Speeds",
    "Tiers",
    "Uniform",
    "Utility",
]
