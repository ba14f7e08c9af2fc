"""Filters: what an update must be beside others, after the gate has found that it is one."""

from fedagent.admission.filters.base import Filter
from fedagent.admission.filters.claims import ClaimBound
from fedagent.admission.filters.direction import Direction
from fedagent.admission.filters.norm import NormBound
from fedagent.admission.filters.rate import RateCap
from fedagent.admission.filters.staleness_groups import StalenessGroups
from fedagent.admission.filters.trusted import AFLGuard, FLTrust, TrustedSet, ZenoPlusPlus

__all__ = [
    "AFLGuard",
    "ClaimBound",
    "Direction",
    "FLTrust",
    "Filter",
    "NormBound",
    "RateCap",
    "StalenessGroups",
    "TrustedSet",
    "ZenoPlusPlus",
]
