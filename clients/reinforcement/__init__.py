"""Control of a machine whose physics differ from node to node: one policy for all of them."""

from clients.reinforcement.task import ReinforcementTask

__all__ = ["ReinforcementTask"]
