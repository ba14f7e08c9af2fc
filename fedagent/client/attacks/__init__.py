"""Nodes that lie, to test a set-up with: who does (`Attackers`), and one kind of lie a class."""

from fedagent.client.attacks.attack import Attack, Attackers
from fedagent.client.attacks.changes import (
    FreeRider,
    InflatedClaim,
    MetricsFlood,
    Noise,
    Scaling,
    SignFlip,
)
from fedagent.client.attacks.colluding import InnerProduct, LittleIsEnough
from fedagent.client.attacks.labels import LabelFlip
from fedagent.client.attacks.stale import StaleLie

__all__ = [
    "Attack",
    "Attackers",
    "FreeRider",
    "InflatedClaim",
    "InnerProduct",
    "LabelFlip",
    "LittleIsEnough",
    "MetricsFlood",
    "Noise",
    "Scaling",
    "SignFlip",
    "StaleLie",
]
