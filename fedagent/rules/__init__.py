"""Server rules: what an update does to the model. One paper per file."""

from fedagent.rules.ace import ACE
from fedagent.rules.area import AREA
from fedagent.rules.asgd import ASGD
from fedagent.rules.base import Rule, too_stale
from fedagent.rules.buffered import BufferedRule
from fedagent.rules.ca2fl import CA2FL
from fedagent.rules.combining import (
    CentredClipping,
    Combining,
    GeometricMedian,
    Median,
    TrimmedMean,
)
from fedagent.rules.dc_asgd import DCASGD
from fedagent.rules.delayed_nesterov import DelayedNesterov
from fedagent.rules.fadas import FADAS
from fedagent.rules.fedasync import FedAsync
from fedagent.rules.fedat import FedAT
from fedagent.rules.fedbuff import FedBuff
from fedagent.rules.fednova import FedNova
from fedagent.rules.fedstaleweight import FedStaleWeight
from fedagent.rules.heloco import HeLoCo
from fedagent.rules.hierarchical import Hierarchical
from fedagent.rules.malenia import Malenia
from fedagent.rules.one_per_node import OnePerNode
from fedagent.rules.periodic import Periodic
from fedagent.rules.port import PORT
from fedagent.rules.rennala import Rennala
from fedagent.rules.rescaled import Rescaled
from fedagent.rules.ringleader import Ringleader
from fedagent.rules.ringmaster import Ringmaster
from fedagent.rules.ringmaster_lmo import RingmasterLMO
from fedagent.rules.wrapper import RuleWrapper

__all__ = [
    "ACE",
    "AREA",
    "ASGD",
    "BufferedRule",
    "CA2FL",
    "CentredClipping",
    "Combining",
    "DCASGD",
    "DelayedNesterov",
    "FADAS",
    "FedAT",
    "FedAsync",
    "FedBuff",
    "FedNova",
    "FedStaleWeight",
    "GeometricMedian",
    "HeLoCo",
    "Hierarchical",
    "Malenia",
    "Median",
    "OnePerNode",
    "PORT",
    "Periodic",
    "Rennala",
    "Rescaled",
    "Ringleader",
    "Ringmaster",
    "RingmasterLMO",
    "Rule",
    "RuleWrapper",
    "TrimmedMean",
    "too_stale",
]
