"""fedagent: asynchronous federated learning on Flower."""

from fedagent.collaborative import Collaborative
from fedagent.options import AsyncOptions
from fedagent.simulation import run_simulation
from fedagent.strategy import AsyncStrategy, FedAsync, FedBuff, Hierarchical
from fedagent.task import Task
from fedagent.wrapping import asynchronous

__all__ = [
    "AsyncOptions",
    "AsyncStrategy",
    "Collaborative",
    "FedAsync",
    "FedBuff",
    "Hierarchical",
    "Task",
    "asynchronous",
    "run_simulation",
]
