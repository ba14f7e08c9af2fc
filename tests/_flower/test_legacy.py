"""Flower's legacy server, while a simulation has it: the same on every machine."""

from types import SimpleNamespace

import pytest
from flwr.server import Server, SimpleClientManager
from flwr.server.compat import app
from flwr.server.strategy import FedAvg

from fedagent._flower import legacy_server_reproducible


class Telling(FedAvg):
    """Returns the order in which results came."""

    def aggregate_fit(self, server_round, results, failures):
        return [client.cid for client, _ in results], failures

    aggregate_evaluate = aggregate_fit


def started(server: Server | None = None, strategy=None) -> Server:
    return app.init_defaults(server, None, strategy, None)[0]


@pytest.mark.parametrize("method", ["aggregate_fit", "aggregate_evaluate"])
def test_results_reach_a_strategy_in_the_order_of_nodes(method):
    with legacy_server_reproducible(5):
        strategy = started(strategy=Telling()).strategy
    results = [(SimpleNamespace(cid=cid), None) for cid in ("1010", "1002", "999")]
    order, failures = getattr(strategy, method)(1, results, ["kept"])
    assert order == ["999", "1002", "1010"]
    assert failures == ["kept"]


def test_all_nodes_may_work_at_once_unless_the_server_says_otherwise():
    with legacy_server_reproducible(500):
        assert started().max_workers == 500
        own = Server(client_manager=SimpleClientManager(), strategy=FedAvg())
        own.set_max_workers(3)
        assert started(own).max_workers == 3


def test_afterwards_flower_is_as_it_was():
    before = app.init_defaults

    def run() -> None:
        with legacy_server_reproducible(5):
            assert app.init_defaults is not before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert app.init_defaults is before
    assert started().max_workers is None
