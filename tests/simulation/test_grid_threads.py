"""A grid that several threads use at once: time, order and bytes are those of one thread."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait

import numpy as np
import pytest
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import Server, ServerAppComponents, ServerConfig, SimpleClientManager
from flwr.server.server import fit_clients
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

from fedagent import run_simulation
from fedagent.simulation import Equal, Lognormal, Reliability, Runtime, Scripted, TwoClass
from tests.simulation.apps import draw, fleet_of, grid_of, node_of, request


def every_one(grid, *messages, threads: int = 50) -> list:
    """Ask with a thread per message, as Flower's legacy server does; replies in that order."""
    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(grid.send_and_receive, [message]) for message in messages]
        wait(asked)
    return [reply for future in asked for reply in future.result()]


# --- time -----------------------------------------------------------------------------------------


def test_threads_that_wait_together_wait_for_the_slowest_and_no_longer():
    grid = grid_of(fleet_of(3.0, 7.0, 2.0, 5.0))
    replies = every_one(grid, *map(request, range(4)))
    assert [node_of(r) for r in replies] == [0, 1, 2, 3]
    assert grid.clock.now() == 7.0
    every_one(grid, *map(request, range(4)))
    assert grid.clock.now() == 14.0


def test_a_small_pool_is_a_small_concurrency():
    grid = grid_of(Equal(num_nodes=7))
    every_one(grid, *map(request, range(7)), threads=3)
    assert grid.clock.now() == 3.0
    assert grid.statistics.concurrency == 3


def test_no_time_passes_while_a_thread_is_still_about_to_send():
    grid, sent = grid_of(fleet_of(1.0, 1.0)), {}

    def late() -> None:
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:  # at work, like a server that prepares a message
            sum(range(100))
        sent["at_s"] = grid.clock.now()
        list(grid.send_and_receive([request(1)]))

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(late), pool.submit(grid.send_and_receive, [request(0)])]
        wait(both)
    assert [f.exception() for f in both] == [None, None]
    assert sent["at_s"] == 0.0
    assert grid.clock.now() == 1.0


def test_each_thread_has_its_own_timeout():
    grid = grid_of(fleet_of(10.0, 1.0, 4.0))
    with ThreadPoolExecutor(3) as pool:
        timeouts = {0: 3.0, 1: 3.0, 2: None}
        futures = {
            n: pool.submit(lambda n=n, t=t: (list(ask(grid, n, t)), grid.clock.now()))
            for n, t in timeouts.items()
        }
        wait(futures.values())
    came = {n: (len(f.result()[0]), f.result()[1]) for n, f in futures.items()}
    assert came == {0: (0, 3.0), 1: (1, 1.0), 2: (1, 4.0)}


def ask(grid, node: int, timeout: float | None):
    return grid.send_and_receive([request(node)], timeout=timeout)


def test_a_thread_that_goes_on_sends_at_the_moment_of_its_reply():
    grid = grid_of(fleet_of(1.0, 10.0))

    def ping() -> list[float]:
        times = []
        for _ in range(5):
            list(grid.send_and_receive([request(0)]))
            times.append(grid.clock.now())
        return times

    with ThreadPoolExecutor(2) as pool:
        slow, fast = pool.submit(grid.send_and_receive, [request(1)]), pool.submit(ping)
        [next(as_completed([f])) for f in (slow, fast)]
    assert fast.result() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert grid.clock.now() == 10.0


@pytest.mark.parametrize("way", ["lock", "sleep", "queue", "join", "event"])
def test_whatever_other_threads_wait_with_time_goes_on(way):
    """Threads that take turns with a lock, sleep, or wait for each other in any way."""
    grid, lock, done = grid_of(Equal(num_nodes=2)), threading.Lock(), threading.Event()

    def locked(node: int) -> None:
        with lock:
            list(grid.send_and_receive([request(node)]))
        done.set()

    waits: dict[str, Callable] = {
        "lock": lambda: locked(1),
        "sleep": lambda: time.sleep(2.5),
        "queue": lambda: ThreadPoolExecutor(1).submit(int).result(),
        "join": lambda: None,
        "event": lambda: done.wait(20),
    }
    threads = [threading.Thread(target=t) for t in (lambda: locked(0), waits[way])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert grid.clock.now() == (2.0 if way == "lock" else 1.0)


# --- order ----------------------------------------------------------------------------------------


def test_what_clients_draw_does_not_depend_on_which_thread_came_first():
    drawn = []
    for seed in range(10):
        grid = grid_of(Equal(num_nodes=8), draw)
        replies = every_one(grid, *map(request, random.Random(seed).sample(range(8), 8)))
        drawn.append(sorted((node_of(r), r.content["metrics"]["c"]) for r in replies))
    assert drawn == [drawn[0]] * 10


def test_jobs_of_one_moment_begin_in_the_order_of_nodes():
    begun = []
    for seed in range(10):
        grid, order = grid_of(Equal(num_nodes=20)), []
        begin = grid._engine.begin
        grid._engine.begin = lambda m, b=begin, o=order: (o.append(m.metadata.dst_node_id), b(m))
        every_one(grid, *map(request, random.Random(seed).sample(range(20), 20)))
        begun.append(order)
    assert begun == [sorted(begun[0])] * 10


# --- Flower's legacy server -----------------------------------------------------------------------


class Noisy(NumPyClient):
    """Moves by a random step, so that the order of a sum shows in its last bits."""

    def fit(self, parameters, config):
        return [p + np.random.rand(*p.shape).astype(p.dtype) for p in parameters], 1, {}

    def evaluate(self, parameters, config):
        return float(np.random.rand()), 1, {}


class OwnServer(Server):
    """A server with a round of its own, as many projects have."""

    def fit_round(self, server_round, timeout):
        instructions = self.strategy.configure_fit(
            server_round, self.parameters, self.client_manager()
        )
        results, failures = fit_clients(instructions, self.max_workers, timeout, server_round)
        parameters, metrics = self.strategy.aggregate_fit(server_round, results, failures)
        return parameters, metrics, (results, failures)


def legacy_run(
    fleet, workers: int = 0, seed: int = 1, server: bool = False, threads: int | None = None, **kw
):
    """Run three rounds of FedAvg; return (bytes of the model after each round, statistics)."""
    models = []

    def evaluate(server_round, parameters, config):
        models.append(b"".join(a.tobytes() for a in parameters))
        return 0.0, {}

    def server_fn(context):
        initial = ndarrays_to_parameters([np.zeros(1000, np.float32)])
        strategy = FedAvg(initial_parameters=initial, evaluate_fn=evaluate, **kw)
        config = ServerConfig(num_rounds=3)
        if not server and threads is None:
            return ServerAppComponents(strategy=strategy, config=config)
        own = OwnServer(client_manager=SimpleClientManager(), strategy=strategy)
        own.set_max_workers(threads)
        return ServerAppComponents(server=own, config=config)

    result = run_simulation(
        ServerApp(server_fn=server_fn),
        ClientApp(client_fn=lambda context: Noisy().to_client()),
        fleet=fleet,
        seed=seed,
        runtime=Runtime(workers=workers),
    )
    return models, result.statistics


@pytest.mark.parametrize("own_server", [False, True])
@pytest.mark.parametrize(
    ("fleet", "expected_s"),
    [
        (Equal(num_nodes=40), 3.0),
        (TwoClass(num_nodes=10), 75.0),
        (Scripted(num_nodes=4, times=(1.0, 1.3, 2.9, 7.1)), 21.3),
    ],
    ids=["equal", "two_class", "scripted"],
)
def test_a_legacy_round_takes_as_long_as_its_slowest_client(fleet, expected_s, own_server):
    _, statistics = legacy_run(fleet, server=own_server, fraction_evaluate=0.0)
    assert statistics.now_s == pytest.approx(expected_s)
    assert statistics.num_updates == 3 * fleet.num_nodes
    assert statistics.concurrency == fleet.num_nodes


def test_a_legacy_server_that_bounds_its_threads_bounds_the_cohort():
    _, statistics = legacy_run(Equal(num_nodes=10), threads=5, fraction_evaluate=0.0)
    assert (statistics.now_s, statistics.concurrency) == (6.0, 5)


@pytest.mark.parametrize(
    "fleet",
    [
        Equal(num_nodes=12),
        Lognormal(num_nodes=12, jitter=0.3, reliability=Reliability(failure_rate=0.2)),
    ],
    ids=["equal", "unreliable"],
)
def test_a_legacy_app_gives_the_same_bytes_for_any_number_of_workers(fleet):
    settings = {"fraction_fit": 0.7, "fraction_evaluate": 0.5}
    expected, seen = legacy_run(fleet, **settings)
    assert len(set(expected)) == 4
    for workers in (0, 1, 2, 3):
        models, statistics = legacy_run(fleet, workers, **settings)
        assert models == expected
        assert statistics == seen
    assert legacy_run(fleet, seed=2, **settings)[0] != expected


def test_a_legacy_app_waits_for_nodes_that_are_away():
    nights = Reliability(period_s=10.0, online_fraction=0.5)
    _, statistics = legacy_run(
        Equal(num_nodes=6, reliability=nights), fraction_evaluate=0.0, fraction_fit=0.5
    )
    assert statistics.outcomes["applied", ""] >= 3


def test_parameters_can_come_from_a_client():
    class Beginner(Noisy):
        def get_parameters(self, config):
            return [np.full(3, 5.0, np.float32)]

    seen = []

    def evaluate(server_round, parameters, config):
        seen.append(parameters)
        return 0.0, {}

    run_simulation(
        ServerApp(
            server_fn=lambda context: ServerAppComponents(
                strategy=FedAvg(evaluate_fn=evaluate, fraction_evaluate=0.0),
                config=ServerConfig(num_rounds=1),
            )
        ),
        ClientApp(client_fn=lambda context: Beginner().to_client()),
        num_supernodes=4,
    )
    assert seen[0][0].tolist() == [5.0, 5.0, 5.0]
