"""Flower's legacy server (``ServerApp(server_fn=...)``), made independent of the machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

from fedagent._flower.uses import LEGACY_SERVER


@contextmanager
def legacy_server_reproducible(num_nodes: int) -> Iterator[None]:
    """Let legacy servers that start in this context do the same on every machine.

    Two things in them depend on it. How many clients work at once is bounded by the pool's threads,
    a few more than CPU cores unless ``server.set_max_workers`` says otherwise: here, all nodes.
    And results reach the strategy in the order of a set of futures, that is of their addresses,
    which decides the last bits of every mean: here, in the order of nodes.

    Parameters
    ----------
    num_nodes : clients that may work at once.
    """
    if not LEGACY_SERVER.is_possible:
        yield
        return
    app: Any = import_module("flwr.server.compat.app")  # which does not export what it uses
    flowers_own = app.init_defaults

    @wraps(flowers_own)
    def init_defaults(*args: Any, **kwargs: Any) -> Any:
        server, config = flowers_own(*args, **kwargs)
        if server.max_workers is None:
            server.set_max_workers(num_nodes)
        for name in ("aggregate_fit", "aggregate_evaluate"):
            setattr(server.strategy, name, _in_order_of_nodes(getattr(server.strategy, name)))
        return server, config

    app.init_defaults = init_defaults
    try:
        yield
    finally:
        app.init_defaults = flowers_own


def _in_order_of_nodes(aggregate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(aggregate)
    def ordered(server_round: int, results: list[Any], failures: list[Any]) -> Any:
        results = sorted(results, key=lambda result: int(result[0].cid))
        return aggregate(server_round, results, failures)

    return ordered
