"""What a task costs the control plane, in this process or in one of its own."""

import json
import logging
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedagent import FedBuff, rules, run_simulation
from fedagent.callbacks import Callback, Settlement
from fedagent.model import FlatModel, ModelSpec
from fedagent.nodes.backoff import Backoff
from fedagent.nodes.membership import Membership
from fedagent.proxy.ledger import Ledger, Version
from fedagent.scheduling import Observation, Uniform
from fedagent.simulation import Lognormal, Reliability
from fedagent.simulation.clock import EventQueue, VirtualClock
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind, Outcome, Update

NODES = (1_000, 10_000, 100_000, 1_000_000)
PARAMETERS, BUFFER_SIZE, MAX_IN_FLIGHT = 10, 100, 10_000
FAILING = Reliability(failure_rate=0.02, silence_rate=0.01, period_s=86_400.0, online_fraction=0.5)


class Meter(Callback):
    """Times `tasks` that are settled after the first one."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._num_settled = 0
        self._times: list[tuple[float, float]] = []

    def tick(self) -> None:
        """Count a task."""
        if self._num_settled in (0, self._tasks):
            self._times.append((time.perf_counter(), time.process_time()))
        self._num_settled += 1

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Count a task."""
        self.tick()

    def is_over(self, statistics: Statistics) -> str | None:
        """Return a reason to stop once all are counted."""
        return "all counted" if len(self._times) == 2 else None

    def reading(self) -> dict[str, float]:
        """Return the number of tasks, that per second, CPU time of one, and the peak memory."""
        wall_s, cpu_s = (end - begin for begin, end in zip(*self._times, strict=True))
        return {
            "tasks": self._tasks,
            "tasks_per_s": round(self._tasks / wall_s),
            "cpu_us": round(1e6 * cpu_s / self._tasks, 1),
            "peak_mb": peak_mb(),
        }


def pure(num_nodes: int, in_flight: int, tasks: int) -> dict[str, float]:
    """Measure the loop without a transport."""
    initial = {"w": np.zeros(PARAMETERS, np.float32)}
    model, rule = FlatModel(ModelSpec.of(initial), initial), rules.FedBuff(BUFFER_SIZE)
    ledger, membership, scheduler = Ledger(), Membership(Backoff()), Uniform()
    clock, arrivals, chance = VirtualClock(), EventQueue[Dispatch](), random.Random(0)
    statistics, meter = Statistics(is_virtual=True, concurrency=in_flight), Meter(tasks)
    membership.refresh(range(num_nodes))
    ledger.publish(Version(0, model.vector.clone(), None))

    def dispatch() -> None:
        job = scheduler.assign(membership.idle, clock.now())
        assert job is not None
        membership.take(job.node_id)
        number, now_s = statistics.num_dispatches, clock.now()
        sent = Dispatch(str(number), job.node_id, model.version, "", now_s, math.inf)
        ledger.open(sent)
        statistics.dispatched(Kind.TRAIN, 0)
        arrivals.add(now_s + chance.lognormvariate(0.0, 1.5), number, sent)

    def settle() -> None:
        statistics.now_s, done = arrivals.pop()
        clock.advance_to(statistics.now_s)
        base, staleness = ledger.base(done), ledger.staleness(done)
        duration_s = statistics.now_s - done.sent_at_s
        update = Update(done.node_id, torch.zeros_like(base.vector), base.vector, staleness)
        scheduler.observe(Observation(done.node_id, None, duration_s, staleness))
        statistics.received(staleness, duration_s)
        if rule.receive(model, update):
            model.version += 1
            ledger.publish(Version(model.version, model.vector.clone(), None))
        ledger.settle(done.message_id)
        statistics.settled(done, Outcome.APPLIED, "", 0)
        membership.release(done.node_id, statistics.now_s, succeeded=True)
        meter.tick()

    for _ in range(in_flight):
        dispatch()
    for _ in range(tasks + 1):
        settle()
        dispatch()
    return meter.reading()


def messages(
    num_nodes: int, in_flight: int, tasks: int, reliability: Reliability | None = None
) -> dict[str, float]:
    """Measure a whole simulation."""
    server, client, meter = ServerApp(), ClientApp(), Meter(tasks)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedBuff(
            buffer_size=BUFFER_SIZE,
            concurrency=in_flight,
            fraction_evaluate=0.0,
            callbacks=[meter],
            stopping=[meter.is_over],
        )
        initial = ArrayRecord({"w": torch.zeros(PARAMETERS)})
        strategy.start(grid, initial, num_rounds=tasks, timeout=1e6)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    fleet = Lognormal(num_nodes=num_nodes, reliability=reliability or Reliability())
    run_simulation(server, client, fleet=fleet)
    return meter.reading()


def failing(num_nodes: int, in_flight: int, tasks: int) -> dict[str, float]:
    """Measure a simulation of nodes that come, go and fail."""
    return messages(num_nodes, in_flight, tasks, FAILING)


PARTS: dict[str, Callable[[int, int, int], dict[str, float]]] = {
    "pure": pure,
    "messages": messages,
    "failing": failing,
}


def peak_mb() -> int:
    """Return the largest resident set that this process has had, in MB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes * 1024 / 1e6) if sys.platform == "linux" else round(kilobytes / 1e6)


def measure(num_nodes: int, tasks: int, parts: list[str]) -> dict:
    """Measure one population in this process; the part without Flower does ten times the tasks."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    in_flight = min(MAX_IN_FLIGHT, num_nodes // 10)
    reading: dict = {"nodes": num_nodes, "in_flight": in_flight, "imports_mb": peak_mb()}
    for part in parts:
        count = 10 * tasks if part == "pure" else tasks
        reading[part] = PARTS[part](num_nodes, in_flight, count)
    return reading


def measure_apart(num_nodes: int, tasks: int, parts: Iterable[str] = PARTS) -> dict:
    """Measure one population in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.control_plane", "--alone", *parts]
    command += ["--nodes", str(num_nodes), "--tasks", str(tasks)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
