"""Running Flower apps on a simulated fleet: the same bytes for the same seed, whoever works."""

import gc
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedagent import FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal, Lognormal, Reliability, Runtime, Scripted
from fedagent.wire.records import digest
from tests.simulation.apps import app_of, arrays, echo, fail_as_told, metrics, request


def server_of(main) -> ServerApp:
    app = ServerApp()
    app.main()(main)
    return app


def nothing(grid, context):
    pass


server = server_of(nothing)  # for "tests.simulation.test_run:server"


def drift(message, context):
    """A random step from every generator, of a length that grows with what the node remembers."""
    known = context.state.metric_records.get("steps", MetricRecord({"n": 0}))["n"]
    context.state["steps"] = MetricRecord({"n": known + 1})
    noise = torch.randn(2) * np.random.rand() + random.random() * known
    weights = torch.from_numpy(message.content["arrays"]["w"].numpy().copy()) + noise
    return RecordDict({"arrays": ArrayRecord({"w": weights}), **metrics()})


STRATEGIES = {
    "synchronous": lambda: FedAvg(fraction_train=0.5, fraction_evaluate=0.0),
    "asynchronous": lambda: FedBuff(buffer_size=3, concurrency=4),
}


def drifted(seed: int, workers: int, strategy: str = "synchronous", **runtime) -> str:
    """The digest of a model after five rounds of a sampled, unreliable, uneven fleet."""
    outcome = {}

    def main(grid, context):
        result = STRATEGIES[strategy]().start(grid, arrays(0.0, 0.0), num_rounds=5)
        outcome["digest"] = digest(result.arrays)

    fleet = Lognormal(num_nodes=8, jitter=0.3, reliability=Reliability(failure_rate=0.1))
    runtime = Runtime(workers, **runtime)
    run_simulation(server_of(main), app_of(drift), fleet=fleet, seed=seed, runtime=runtime)
    return outcome["digest"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "runtime",
    [
        {"workers": 0},
        {"workers": 1},
        {"workers": 2},
        {"workers": 4},
        {"workers": 2, "vectorise": "never", "group_size": 2},
        {"workers": 2, "job_limit_s": 600.0},
        {"workers": 0, "check": True},
    ],
    ids=str,
)
def test_the_same_seed_gives_the_same_bytes_whatever_does_the_work(strategy, runtime):
    expected = drifted(seed=1, workers=0, strategy=strategy)
    assert drifted(seed=1, strategy=strategy, **runtime) == expected
    assert drifted(seed=2, strategy=strategy, **runtime) != expected


def test_the_callers_generators_are_as_they_were():
    torch.manual_seed(4)
    random.seed(4)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(4)
    random.seed(4)
    drifted(seed=1, workers=0)
    assert (torch.rand(1).item(), random.random()) == expected


def test_both_apps_see_the_run_config_and_keep_their_own_copy():
    seen = []

    def main(grid, context):
        seen.append(dict(context.run_config))
        context.run_config["lr"] = 99.0
        seen.extend(r.content["metrics"]["lr"] for r in grid.send_and_receive([request(0)]))

    client = app_of(lambda message, context: metrics(lr=context.run_config["lr"]))
    config = {"lr": 0.5}
    run_simulation(server_of(main), client, 1, run_config=config)
    assert seen == [{"lr": 0.5}, 0.5]
    assert config == {"lr": 0.5}


def test_the_result_holds_the_servers_state_and_what_the_grid_saw():
    def main(grid, context):
        list(grid.send_and_receive([request(0), request(1)]))
        context.state["done"] = MetricRecord({"rounds": 1})

    fleet = Scripted(num_nodes=2, times=(2.0, 3.0))
    result = run_simulation(server_of(main), app_of(echo), fleet=fleet)
    assert result.context.state["done"]["rounds"] == 1
    assert result.statistics.num_updates == 2
    assert result.statistics.now_s == 3.0


@pytest.mark.parametrize(
    ("arguments", "num_nodes"),
    [({}, 10), ({"num_supernodes": 3}, 3), ({"num_supernodes": 4, "fleet": Equal()}, 4)],
)
def test_the_number_of_nodes_is_the_one_asked_for(arguments, num_nodes):
    seen = []
    main = server_of(lambda grid, context: seen.extend(grid.get_node_ids()))
    run_simulation(main, app_of(echo), **arguments)
    assert len(seen) == num_nodes


def test_apps_may_be_named():
    run_simulation("tests.simulation.test_run:server", "tests.simulation.apps:counting")


@pytest.mark.parametrize(
    ("server_app", "client_app", "arguments", "named"),
    [
        ("tests.simulation.test_run:nobody", app_of(echo), {}, "nobody"),
        (server, "no_such_module:app", {}, "no_such_module"),
        (app_of(echo), app_of(echo), {}, "not a ServerApp"),
        (server, server, {}, "not a ClientApp"),
        (server, app_of(echo), {"num_supernodes": 0}, "num_nodes=0"),
        (
            server,
            app_of(echo),
            {"num_supernodes": 3, "fleet": Scripted(num_nodes=2, times=(1.0, 1.0))},
            "2 times for num_nodes=3",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(server_app, client_app, arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        run_simulation(server_app, client_app, **arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_server_app_raises_passes_and_leaves_no_process(workers):
    before = set(multiprocessing.active_children())

    def main(grid, context):
        grid.push_messages([request(n) for n in range(4)])
        raise RuntimeError("the server gave up")

    with pytest.raises(RuntimeError, match="the server gave up"):
        run_simulation(server_of(main), app_of(echo), runtime=Runtime(workers))
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_server_app_draws_does_not_depend_on_who_works(workers):
    def drawn(workers: int) -> list[float]:
        numbers = []

        def main(grid, context):
            for n in range(3):
                numbers.extend([np.random.randn(), random.random(), torch.rand(1).item()])
                list(grid.send_and_receive([request(n), request(n + 1)]))

        run_simulation(server_of(main), app_of(drift), 4, seed=1, runtime=Runtime(workers))
        return numbers

    expected = drawn(0)
    assert len(set(expected)) == 9
    assert drawn(workers) == expected


def test_the_callers_generators_go_on_as_if_nothing_had_run():
    def three() -> list[float]:
        return [np.random.randn(), random.random(), torch.rand(1).item()]

    np.random.seed(1), random.seed(1), torch.manual_seed(1)
    three()
    expected = three()
    np.random.seed(1), random.seed(1), torch.manual_seed(1)
    three()
    drifted(seed=1, workers=0)
    assert three() == expected


def test_a_client_that_kills_its_worker_is_one_failed_node():
    replies = []

    def main(grid, context):
        words = ["work", "die", "work"]
        messages = [request(n, do=word) for n, word in enumerate(words)]
        replies.extend(grid.send_and_receive(messages))

    result = run_simulation(server_of(main), app_of(fail_as_told), 3, runtime=Runtime(2))
    assert [r.has_error() for r in replies] == [False, True, False]
    assert result.statistics.outcomes["failed", "client-app-crashed"] == 1


def test_the_garbage_collector_leaves_what_is_older_than_the_run_alone():
    frozen = []
    server = server_of(lambda grid, context: frozen.append(gc.get_freeze_count()))
    run_simulation(server, app_of(echo))
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


# --- a worker that is killed ----------------------------------------------------------------------


class KillsWorkers(Callback):
    """Kills a worker process at some versions, whatever it is doing."""

    def __init__(self, *versions: int) -> None:
        self.versions, self.killed = set(versions), []

    def on_version(self, statistics) -> None:
        if statistics.version in self.versions:
            victim = min(multiprocessing.active_children(), key=lambda child: child.pid)
            os.kill(victim.pid, signal.SIGKILL)
            self.killed.append(victim.pid)


def test_killing_workers_in_the_middle_of_a_run_loses_only_what_they_were_doing():
    killer = KillsWorkers(3, 6, 9)
    seen = {}

    def slow_drift(message, context):
        time.sleep(0.005)
        return drift(message, context)

    def main(grid, context):
        strategy = FedBuff(buffer_size=5, concurrency=10, fraction_evaluate=0.0, callbacks=[killer])
        strategy.start(grid, arrays(0.0, 0.0), num_rounds=8)
        seen["statistics"] = strategy.proxy.statistics

    fleet = Lognormal(num_nodes=20)
    run_simulation(server_of(main), app_of(slow_drift), fleet=fleet, runtime=Runtime(workers=2))
    statistics = seen["statistics"]
    assert len(set(killer.killed)) == 3
    assert statistics.version == 16
    assert statistics.outcomes["applied", ""] == 80
    crashed = statistics.outcomes["failed", "client-app-crashed"]
    assert crashed <= 3
    # Every dispatch has ended, in one way, and no other way occurs.
    assert statistics.in_flight == 0
    ended = 80 + crashed + statistics.outcomes["expired", "run-ended"]
    assert statistics.num_dispatches == ended
