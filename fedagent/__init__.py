"""fedagent: asynchronous federated learning on Flower.

Names are imported when they are first used: a device that only runs ``fedagent node`` should not
hold PyTorch in every process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "AsyncOptions": "options",
    "AsyncStrategy": "strategy",
    "Collaborative": "collaborative",
    "FedAsync": "strategy",
    "FedBuff": "strategy",
    "Hierarchical": "strategy",
    "Task": "task",
    "asynchronous": "wrapping",
    "run_simulation": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
