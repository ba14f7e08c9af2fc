"""Schedulers that ignore speed."""

from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Scheduler


class Uniform(Scheduler):
    """Every idle node is as likely as any other."""

    def choose(self, idle: IdleNodes) -> int:
        """Return a uniformly random idle node."""
        return idle.random(self.generator)


class RoundRobin(Scheduler):
    """The node that has been idle longest goes first."""

    def choose(self, idle: IdleNodes) -> int:
        """Return the node that has been idle longest."""
        return idle.oldest()
