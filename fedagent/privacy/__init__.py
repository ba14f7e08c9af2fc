"""Differential privacy that holds without rounds: `Private` around any rule, and what it spends."""

from fedagent.privacy.accountant import Accountant, epsilon_of, noise_multiplier_for, sigma_of
from fedagent.privacy.clipping import Clipping
from fedagent.privacy.noise import Noise
from fedagent.privacy.rule import Private

__all__ = [
    "Accountant",
    "Clipping",
    "Noise",
    "Private",
    "epsilon_of",
    "noise_multiplier_for",
    "sigma_of",
]
