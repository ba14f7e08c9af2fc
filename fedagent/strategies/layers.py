"""A Flower strategy and those inside it: Flower's differential privacy wraps another strategy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.serverapp.strategy import Strategy


def setting_of(strategy: Strategy, name: str, default: Any) -> Any:
    """Return a setting of a strategy, or of the one it wraps as Flower's DP wrappers do."""
    for part in layers_of(strategy):
        if hasattr(part, name):
            return getattr(part, name)
    return default


def layers_of(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy, the one it wraps, and so on."""
    layer: object = strategy
    while isinstance(layer, Strategy):
        yield layer
        layer = getattr(layer, "strategy", None)


@contextmanager
def restored_on_error(strategy: Strategy) -> Iterator[None]:
    """Give a strategy, and those it wraps, back the attributes they had, if what follows raises."""
    restore = remembered(strategy)
    try:
        yield
    except Exception:
        restore()
        raise


def remembered(strategy: Strategy) -> Callable[[], None]:
    """Return a function that gives a strategy, and those it wraps, the attributes they have now."""
    before = [(layer, dict(vars(layer))) for layer in layers_of(strategy)]

    def restore() -> None:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)

    return restore
