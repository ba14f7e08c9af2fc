"""fedagent: asynchronous federated learning on Flower.

Names are imported when they are first used: a device that only runs ``fedagent node`` should not
hold PyTorch in every process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedagent.proxy.options import AsyncOptions
    from fedagent.proxy.robust import Robust
    from fedagent.proxy.secure import SecureAggregation
    from fedagent.simulation import run_simulation
    from fedagent.strategies.async_strategy import AsyncStrategy
    from fedagent.strategies.collaborative import Collaborative
    from fedagent.strategies.presets import FedAsync, FedBuff, Hierarchical
    from fedagent.strategies.wrapping import asynchronous
    from fedagent.tasks.task import Task
    from fedagent.wire.coding import Coding

__all__ = [
    "AsyncOptions",
    "AsyncStrategy",
    "Coding",
    "Collaborative",
    "FedAsync",
    "FedBuff",
    "Hierarchical",
    "Robust",
    "SecureAggregation",
    "Task",
    "asynchronous",
    "run_simulation",
]

_MODULES = {
    "AsyncOptions": "proxy.options",
    "AsyncStrategy": "strategies.async_strategy",
    "Coding": "wire.coding",
    "Collaborative": "strategies.collaborative",
    "FedAsync": "strategies.presets",
    "FedBuff": "strategies.presets",
    "Hierarchical": "strategies.presets",
    "Robust": "proxy.robust",
    "SecureAggregation": "proxy.secure",
    "Task": "tasks.task",
    "asynchronous": "strategies.wrapping",
    "run_simulation": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
