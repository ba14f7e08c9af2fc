"""What a Flower user types: asynchronous strategies, and wrappers around Flower's own."""

from fedagent.strategies.async_strategy import AsyncStrategy
from fedagent.strategies.collaborative import Collaborative
from fedagent.strategies.presets import FedAsync, FedBuff, Hierarchical
from fedagent.strategies.synchronous import Synchronous
from fedagent.strategies.wrapping import asynchronous

__all__ = [
    "AsyncStrategy",
    "Collaborative",
    "FedAsync",
    "FedBuff",
    "Hierarchical",
    "Synchronous",
    "asynchronous",
]
