"""fedagent: asynchronous federated learning on Flower."""

from fedagent.collaborative import Collaborative
from fedagent.options import AsyncOptions
from fedagent.simulation import run_simulation
from fedagent.strategy import AsyncStrategy, FedAsync, FedBuff
from fedagent.task import Task
from fedagent.wrapping import asynchronous

__all__ = [
    "AsyncOptions",
    "AsyncStrategy",
    "Collaborative",
    "FedAsync",
    "FedBuff",
    "Task",
    "asynchronous",
    "run_simulation",
]
