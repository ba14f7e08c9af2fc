"""Gymnasium's CartPole-v1 and Acrobot-v1, many at once and each with physics of its own.

Shape legend: B machines, D numbers in a state, O in an observation, Q quantities of their physics.
An episode that is over is not begun again: who steps on counts no more of it.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fedagent.tasks import Package

GYMNASIUM = Package("gymnasium", "The simulated machines", "fedagent[reinforcement]")

MAX_STEPS = 500
"""Longest episode, of both as gymnasium registers them."""

Floats = npt.NDArray[np.floating]


class Step(NamedTuple):
    """What follows from B actions."""

    observations: npt.NDArray[np.float32]
    """(B, O)"""
    rewards: npt.NDArray[np.float32]
    """(B,)"""
    is_over: npt.NDArray[np.bool_]
    """(B,) episodes that this step ended, for good or ill; no time limit"""


class Machines(ABC):
    """B machines that gymnasium simulates, each at a state.

    Parameters
    ----------
    factors : (B, Q) by which the attributes in `factor_ranges` are multiplied.
    states : (B, D) where the machines begin.
    """

    factor_ranges: ClassVar[dict[str, tuple[float, float]]]
    """Attributes of gymnasium's class that make the physics, and the factors they may have."""
    explored: ClassVar[tuple[float, ...]]
    """(D,) exploring starts lie between minus and plus these."""
    usual: ClassVar[float]
    """Gymnasium's own starts lie between minus and plus this."""
    scale: ClassVar[tuple[float, ...]]
    """(O,) usual sizes of what is observed."""
    num_actions: ClassVar[int]

    @abstractmethod
    def __init__(self, factors: Floats, states: Floats) -> None: ...

    @abstractmethod
    def observe(self) -> npt.NDArray[np.float32]:
        """Return the (B, O) observations."""

    @abstractmethod
    def step(self, actions: npt.NDArray[np.int64]) -> Step:
        """Do (B,) actions."""

    def _has_physics(self, env: Any, factors: Floats) -> None:
        """Multiply the attributes; they become (B,) arrays, which gymnasium's formulas allow."""
        for name, factor in zip(self.factor_ranges, factors.T, strict=True):
            setattr(env, name, getattr(env, name) * factor)


class CartPole(Machines):
    """A pole to be balanced on a cart; +1 for every step. State: place, angle and their speeds."""

    factor_ranges: ClassVar = {
        "gravity": (0.5, 2.0),  # of 9.8 m/s^2
        "masscart": (0.3, 3.0),  # of 1 kg
        "masspole": (0.3, 10.0),  # of 0.1 kg
        "length": (0.2, 4.0),  # of 0.5 m, half the pole
        "force_mag": (0.3, 3.0),  # of 10 N
        "tau": (0.5, 2.0),  # of 0.02 s from one action to the next
    }
    explored = (2.4, 2.0, 0.2094, 2.0)  # m, m/s, rad, rad/s
    usual = 0.05
    scale = (2.4, 1.0, 0.2094, 1.0)
    num_actions = 2

    def __init__(self, factors: Floats, states: Floats) -> None:
        gymnasium = GYMNASIUM.module("gymnasium.envs.classic_control.cartpole")
        self.env = env = gymnasium.CartPoleVectorEnv(len(factors), max_episode_steps=MAX_STEPS)
        self._has_physics(env, factors)
        env.total_mass, env.polemass_length = env.masscart + env.masspole, env.masspole * env.length
        env.reset(seed=0)
        env.state = states.T.astype(np.float64)

    def observe(self) -> npt.NDArray[np.float32]:
        """Return the (B, 4) states."""
        observations: npt.NDArray[np.float32] = self.env.state.T.astype(np.float32)
        return observations

    def step(self, actions: npt.NDArray[np.int64]) -> Step:
        """Push the carts left (0) or right (1)."""
        observations, rewards, is_over, *_ = self.env.step(actions)
        return Step(observations, rewards, is_over)


class Acrobot(Machines):
    """Two hanging links to be swung up; -1 for every step until the tip is high enough.

    State: angles of the joints and their speeds. Gymnasium steps one at a time; its equations of
    motion, its limits and its integrator (one step of Runge-Kutta) serve for B here.
    """

    factor_ranges: ClassVar = {
        "LINK_LENGTH_1": (0.7, 1.4),  # of 1 m
        "LINK_COM_POS_1": (0.7, 1.4),  # of 0.5 m, from the joint to the centre of mass
        "LINK_COM_POS_2": (0.7, 1.4),
        "LINK_MASS_1": (0.7, 1.4),  # of 1 kg
        "LINK_MASS_2": (0.7, 1.4),
    }
    explored = (np.pi, np.pi, 4.0, 9.0)  # rad, rad/s
    usual = 0.1
    scale = (1.0, 1.0, 1.0, 1.0, 4.0, 9.0)
    num_actions = 3

    def __init__(self, factors: Floats, states: Floats) -> None:
        gymnasium = GYMNASIUM.module("gymnasium.envs.classic_control.acrobot")
        self.env = env = gymnasium.AcrobotEnv()
        self._has_physics(env, factors)
        self.torques = np.array(env.AVAIL_TORQUE)
        self.state = states.T.astype(np.float64)

    def observe(self) -> npt.NDArray[np.float32]:
        """Return (B, 6) cosine and sine of both angles, and the speeds."""
        first, second, *speeds = self.state
        parts = np.cos(first), np.sin(first), np.cos(second), np.sin(second), *speeds
        return np.stack(parts, 1).astype(np.float32)

    def step(self, actions: npt.NDArray[np.int64]) -> Step:
        """Turn the joint between the links one way (0), not (1) or the other way (2)."""
        env, torque = self.env, self.torques[actions]

        def motion(state: Floats) -> Floats:
            return np.stack(env._dsdt(np.vstack((state, torque)))[:4])

        now, dt = self.state, env.dt
        k1 = motion(now)
        k2 = motion(now + dt / 2 * k1)
        k3 = motion(now + dt / 2 * k2)
        k4 = motion(now + dt * k3)
        then = now + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        then[:2] = (then[:2] + np.pi) % (2 * np.pi) - np.pi
        limits = np.array([[env.MAX_VEL_1], [env.MAX_VEL_2]])
        then[2:] = np.clip(then[2:], -limits, limits)
        self.state = then
        is_over = -np.cos(then[0]) - np.cos(then[0] + then[1]) > 1.0
        return Step(self.observe(), np.where(is_over, 0, -1).astype(np.float32), is_over)


MACHINES: dict[str, type[Machines]] = {"cartpole": CartPole, "acrobot": Acrobot}
