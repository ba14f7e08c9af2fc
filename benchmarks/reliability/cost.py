"""What it costs that nothing is lost: updates per second, seconds of a checkpoint, memory."""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from benchmarks.deployment.round_trips import SetUp, measure
from benchmarks.engine.workload import COHORT, NODES, client_app, module
from benchmarks.reliability.local_grid import LocalGrid
from fedagent import FedAsync, FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.journal import Checkpoints
from fedagent.proxy.checkpointing import Checkpointing
from fedagent.simulation import Lognormal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates

MB = 2.0**20


def side_by_side(
    run: Callable[[Checkpoints | None], int], pairs: int, unit: str
) -> dict[str, float]:
    """Run without a journal and with the default one, in turn; return what the journal costs.

    Parameters
    ----------
    run : saves as it is told, and returns how many updates it did.
    pairs : of runs, after one that is not counted.
    unit : what the journal's period counts: 10 versions, or 100 updates.

    Returns
    -------
    ``cost`` is the median over pairs of 1 - rate with / rate without, in seconds on the wall, and
    ``cost_cpu`` in those that this process computed, which other processes do not change.
    """
    samples = [(_rates(run, None), _saving_rates(run, unit)) for _ in range(pairs + 1)][1:]
    lost = [[1 - on / off for off, on in zip(*pair, strict=True)] for pair in samples]
    return {
        "updates_per_s_without": round(statistics.median(off[0] for off, _ in samples), 1),
        "updates_per_s_with": round(statistics.median(on[0] for _, on in samples), 1),
        "cost": round(statistics.median(wall for wall, _ in lost), 4),
        "cost_cpu": round(statistics.median(cpu for _, cpu in lost), 4),
    }


def _saving_rates(run: Callable[[Checkpoints | None], int], unit: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        every = 10 if unit == "versions" else 100
        return _rates(run, Checkpoints(Path(folder), unit, every))  # type: ignore[arg-type]


def _rates(
    run: Callable[[Checkpoints | None], int], saving: Checkpoints | None
) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    updates = run(saving)
    return updates / (time.perf_counter() - wall_s), updates / (time.process_time() - cpu_s)


def simulated(model: str, updates: int) -> Callable[[Checkpoints | None], int]:
    """Return what trains packaged MNIST on a simulated fleet, in this process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)

    def run(saving: Checkpoints | None) -> int:
        strategy = FedBuff(
            buffer_size=COHORT,
            concurrency=COHORT,
            fraction_evaluate=0.0,
            stopping=[MaxUpdates(updates)],
            checkpoint=saving,
        )
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            arrays = ArrayRecord(module(model).state_dict())
            strategy.start(grid, arrays, 10**6, train_config=ConfigRecord({"model": model}))

        fleet = Lognormal(num_nodes=NODES)
        run_simulation(server, client_app, fleet=fleet, runtime=Runtime(workers=0))
        return updates

    return run


def real(
    num_parameters: int, updates: int, callbacks: tuple[Callback, ...] = ()
) -> Callable[[Checkpoints | None], int]:
    """Return what runs on a wall clock, with clients that take no time: nothing hides the cost."""

    def answer(message: Message) -> Message:
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    def run(saving: Checkpoints | None) -> int:
        strategy = FedAsync(
            concurrency=3,
            fraction_evaluate=0.0,
            stopping=[MaxUpdates(updates)],
            checkpoint=saving,
            callbacks=callbacks,
        )
        arrays = ArrayRecord([np.zeros(num_parameters, np.float32)])
        strategy.start(LocalGrid(answer), arrays, 10**6)
        return updates

    return run


def deployed(pairs: int, updates_per_node: int = 40) -> dict[str, float]:
    """Run a SuperLink and two nodes that answer at once, without and with the journal, in turn.

    Returns
    -------
    As `side_by_side`, but for the seconds that a process computed.
    """
    samples = []
    for number in range(pairs):
        first = bool(number % 2)  # with the journal
        rates = {has_it: _deployed(has_it, updates_per_node) for has_it in (first, not first)}
        samples.append((rates[False], rates[True]))
    return {
        "updates_per_s_without": round(statistics.median(off for off, _ in samples), 2),
        "updates_per_s_with": round(statistics.median(on for _, on in samples), 2),
        "cost": round(statistics.median(1 - on / off for off, on in samples), 4),
    }


def _deployed(has_journal: bool, updates_per_node: int) -> float:
    program = "fedagent", "node"
    set_up = SetUp("fedagent", "fedbuff", program, updates_per_node, 1, has_journal)
    with tempfile.TemporaryDirectory() as folder:
        return measure(set_up, "nothing", 2, Path(folder, "fleet")).updates_per_s


class Resident(Callback):
    """Notes how much memory the process has, every so many updates."""

    def __init__(self, every: int) -> None:
        self._every = every
        self.seen: list[tuple[int, float]] = []

    def on_version(self, statistics: Statistics) -> None:
        """Note it."""
        if statistics.num_updates % self._every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append((statistics.num_updates, pages * os.sysconf("SC_PAGE_SIZE") / MB))

    def slope_mb_per_10k(self) -> float:
        """Return the slope of a line through the last three quarters."""
        updates, megabytes = zip(*self.seen[len(self.seen) // 4 :], strict=True)
        return float(np.polyfit(updates, megabytes, 1)[0] * 10_000)


def memory_mb_per_10k(updates: int) -> float:
    """Return by how much a real run with the default journal grows, in MB per 10,000 updates.

    The first quarter is left out.
    """
    resident = Resident(updates // 40)
    with tempfile.TemporaryDirectory() as folder:
        real(1_000, updates, (resident,))(Checkpoints(Path(folder), "updates", 100))
    return round(resident.slope_mb_per_10k(), 3)


@dataclass(frozen=True)
class _Call:
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s

    def meets(self, others: Sequence["_Call"]) -> bool:
        return any(self.begin_s < o.end_s and o.begin_s < self.end_s for o in others)


@contextmanager
def _timed(owner: type, method: str) -> Iterator[tuple[list[_Call], list[tuple[Any, ...]]]]:
    """Yield the calls of a method, which grow, and their arguments."""
    own, calls, arguments = getattr(owner, method), [], []

    def timed(*given: Any, **named: Any) -> Any:
        begin_s = time.perf_counter()
        try:
            return own(*given, **named)
        finally:
            calls.append(_Call(begin_s, time.perf_counter()))
            arguments.append(given)

    setattr(owner, method, timed)
    try:
        yield calls, arguments
    finally:
        setattr(owner, method, own)


def large_checkpoint(num_parameters: int, repetitions: int) -> dict[str, float]:
    """Compare a checkpoint of a large model with writing as many bytes, and an fsync, in turn.

    It is one of a run with FedAsync: the model and the versions in flight. Of the run itself, whose
    updates are logged as ever, what is told is how long its loop stood still for a checkpoint to
    begin, and how long a turn took at most while one was being written, and a usual one.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        _timed(Checkpoints, "save") as (written, states),
        _timed(Checkpointing, "save") as (asked, _),
    ):
        real(num_parameters, 12)(Checkpoints(Path(name), "updates", 5, keep=1))
    turns = [_Call(a.end_s, b.end_s) for a, b in pairwise(asked)]
    beside = [turn.seconds for turn in turns if turn.meets(written[1:])]
    alone = [turn.seconds for turn in turns if not turn.meets(written[1:])]
    snapshot = states[-1][2]
    seconds, plain, sizes = [], [], []
    for number in range(repetitions):
        with tempfile.TemporaryDirectory() as name:
            if number % 2:
                plain.append(_write_plainly(Path(name, "plain"), sizes[-1]))
            begin_s = time.perf_counter()
            path = Checkpoints(Path(name)).save(number, snapshot, {})
            seconds.append(time.perf_counter() - begin_s)
            sizes.append(path.stat().st_size)
            path.unlink()
            if not number % 2:
                plain.append(_write_plainly(path, sizes[-1]))
    ratios = [mine / theirs for mine, theirs in zip(seconds, plain, strict=True)]
    return {
        "checkpoint_parameters": num_parameters,
        "checkpoint_mb": round(statistics.median(sizes) / MB, 1),
        "checkpoint_s": round(statistics.median(seconds), 3),
        "plain_write_s": round(statistics.median(plain), 3),
        "checkpoint_ratio": round(statistics.median(ratios), 2),
        "checkpoint_stall_s": round(max(call.seconds for call in asked[1:]), 3),
        "longest_turn_beside_s": round(max(beside, default=0.0), 3),
        "longest_turn_alone_s": round(max(alone, default=0.0), 3),
    }


def _write_plainly(path: Path, num_bytes: int) -> float:
    content = np.ones(num_bytes, np.uint8).data  # zeros would take no memory to read
    begin_s = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    took_s = time.perf_counter() - begin_s
    path.unlink()
    return took_s
