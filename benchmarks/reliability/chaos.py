"""Runs that are killed (SIGKILL) at every edge of their journal, again and again, and resumed.

    simulated   eight strategies; the run that died and went on until it was over must leave what an
                undisturbed one leaves: the model's bits, and every number
    real        a fleet on a wall clock, whose updates count themselves: of those that were
                acknowledged none may be missing in the model, and none may be there twice

Every process is a fork of this one, so that a kill costs no import.

    python -m benchmarks.reliability.chaos [--each 20] [--seed 0]       # the same as: make chaos
"""

import argparse
import itertools
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import print_result
from benchmarks.reliability.runs import STRATEGIES, Account, account, real, simulated
from fedagent.journal import Log, checkpoints
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.versions import Versions

PATIENCE_S = 120.0
"""How long a process may take: one that hangs is an error too."""


@dataclass(frozen=True)
class Edge:
    """A moment to die: before, after or in the middle of a call.

    Attributes
    ----------
    name : for people.
    owner, attribute : what is called.
    moment : "before", "after" or "half", which leaves half of what the call has written.
    most : how many calls it may take, at most.
    """

    name: str
    owner: Any
    attribute: str
    moment: str
    most: int = 2


CHECKPOINT = (
    Edge("before a checkpoint is written", checkpoints, "write", "before"),
    Edge("half a checkpoint", checkpoints, "write", "half"),
    Edge("written, before its fsync", checkpoints, "write", "after"),
    Edge("after its fsync, before its rename", Path, "replace", "before"),
    Edge("after its rename", Path, "replace", "after"),
)
PUBLISH = (
    Edge("between apply and publish", Versions, "publish_next", "before", 4),
    Edge("after publish", Versions, "publish_next", "after", 4),
)
LOG = (
    Edge("before a record is written", Log, "append", "before", 12),
    Edge("half a record", Log, "append", "half", 12),
    Edge("written, before a fsync", os, "fsync", "before", 6),
    Edge("after a fsync", os, "fsync", "after", 6),
    Edge("between log and apply", Log, "append", "after", 12),
)
ANYWHERE = Edge("anywhere", None, "", "", 0)
SIMULATED = (*CHECKPOINT, *PUBLISH, ANYWHERE)
REAL = (*CHECKPOINT, *LOG, *PUBLISH, ANYWHERE)


class Deaths:
    """Which edge is next, and how often each was met.

    Parameters
    ----------
    each : deaths wanted at every edge.
    seed : of the draws.
    """

    def __init__(self, each: int, seed: int) -> None:
        self._each, self._random = each, random.Random(seed)
        self.met: Counter[str] = Counter()

    def wanted(self, edges: Sequence[Edge]) -> Edge | None:
        """Return one of the edges that were met least often; None if all were often enough."""
        fewest = min(self.met[edge.name] for edge in edges)
        if fewest >= self._each:
            return None
        return self._random.choice([edge for edge in edges if self.met[edge.name] == fewest])

    def prepare(self, edge: Edge) -> None:
        """Let this process die at an edge."""
        if edge is ANYWHERE:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(0.01, 0.5))
            return
        left = [self._random.randint(1, edge.most)]

        def die(call: Callable[[], Any], file: Path | None) -> Any:
            left[0] -= 1
            if left[0] > 0:
                return call()
            before = file.stat().st_size if file and file.exists() else 0
            if edge.moment != "before":
                call()
            if edge.moment == "half" and file:
                os.truncate(file, (before + file.stat().st_size) // 2)
            return os.kill(os.getpid(), signal.SIGKILL)

        intercept(edge.owner, edge.attribute, die)


def intercept(
    owner: Any, attribute: str, around: Callable[[Callable[[], Any], Path | None], Any]
) -> None:
    """Put `around` in the place of calls; it gets each, and the file that it writes, if any."""
    own = getattr(owner, attribute)

    def instead(*arguments: Any, **keywords: Any) -> Any:
        first = arguments[0]
        file = first._path if isinstance(first, Log) else arguments[-1]
        return around(lambda: own(*arguments, **keywords), file if isinstance(file, Path) else None)

    setattr(owner, attribute, instead)


def in_child(work: Callable[[], None]) -> int:
    """Do work in a copy of this process; return the signal that ended it, 0 if it came to its end.

    Raises
    ------
    RuntimeError
        If it raised something, or took too long.
    """
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    until_s = time.monotonic() + PATIENCE_S
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError(f"A process was not done within {PATIENCE_S:g} s.")
        time.sleep(0.002)
    status = ended[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("A process that should have died or come to its end has failed.")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_until_over(
    run: Callable[[bool], None], folder: Path, edges: Sequence[Edge], deaths: Deaths
) -> None:
    """Let a run die and go on until it comes to its end.

    Parameters
    ----------
    run : starts it, or lets it go on.
    folder : of its checkpoints.
    edges : where it dies, as long as `deaths` are wanted there.
    """
    while True:
        edge, goes_on = deaths.wanted(edges), any(folder.glob("*.safetensors"))

        def work(edge: Edge | None = edge, goes_on: bool = goes_on) -> None:
            if goes_on:
                _note_recovery(folder / "recoveries")
            if edge is not None:
                deaths.prepare(edge)
            run(goes_on)

        deaths._random.random()  # the next process draws something else
        if in_child(work) == 0:
            return
        assert edge is not None
        deaths.met[edge.name] += 1


def _note_recovery(file: Path) -> None:
    begin_s, send = time.perf_counter(), Dispatcher.send

    def first(self: Dispatcher, *arguments: Any) -> Any:
        with file.open("a") as notes:
            notes.write(f"{time.perf_counter() - begin_s}\n")
        Dispatcher.send = send  # type: ignore[method-assign]
        return send(self, *arguments)

    Dispatcher.send = first  # type: ignore[method-assign]


@dataclass
class Outcome:
    """What came of the kills.

    Attributes
    ----------
    met : kills by edge, of simulated and of real runs.
    accounts : of the real runs.
    differences : simulated runs that did not end as an undisturbed one, by name.
    num_runs : simulated runs.
    recoveries_s : from the start of a run that goes on to its first message.
    """

    met: dict[str, Counter[str]]
    accounts: list[Account]
    differences: list[str]
    num_runs: int
    recoveries_s: list[float]

    def summary(self) -> dict[str, Any]:
        """Return the numbers that are asked for."""
        return {
            "kills": sum(counts.total() for counts in self.met.values()),
            "fewest_at_an_edge": min(min(counts.values()) for counts in self.met.values()),
            "acknowledged": sum(a.acknowledged for a in self.accounts),
            "lost": sum(a.lost for a in self.accounts),
            "doubled": sum(a.doubled for a in self.accounts),
            "wrong_counts": sum(a.wrong for a in self.accounts),
            "bit_exact": not self.differences,
            "simulated_runs": self.num_runs,
            "real_runs": len(self.accounts),
            "recovery_s": round(max(self.recoveries_s), 3),
            "recovery_median_s": round(statistics.median(self.recoveries_s), 3),
        }


def chaos(each: int, names: Sequence[str] = tuple(STRATEGIES), seed: int = 0) -> Outcome:
    """Kill simulated and real runs until every edge was met `each` times, and let all end."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    met = {kind: Deaths(each, seed) for kind in ("simulated", "real")}
    outcome = Outcome({kind: deaths.met for kind, deaths in met.items()}, [], [], 0, [])
    for name in itertools.cycle(names):
        if outcome.num_runs >= len(names) and met["simulated"].wanted(SIMULATED) is None:
            break
        with _folder(outcome) as folder:
            if not _is_as_undisturbed(name, folder, met["simulated"]):
                outcome.differences.append(name)
            outcome.num_runs += 1
    while met["real"].wanted(REAL) is not None or not outcome.accounts:
        with _folder(outcome) as folder:
            work = partial(real, folder)
            killed_until_over(work, folder / "checkpoints", REAL, met["real"])
            outcome.accounts.append(account(folder))
    return outcome


def _is_as_undisturbed(name: str, folder: Path, deaths: Deaths) -> bool:
    whole, left = folder / "whole", folder / "left"

    def run(goes_on: bool) -> None:
        left.write_text(simulated(name, folder / "checkpoints", goes_on))

    in_child(lambda: _write(whole, simulated(name, None)))
    killed_until_over(run, folder / "checkpoints", SIMULATED, deaths)
    return whole.read_text() == left.read_text()


def _write(file: Path, text: str) -> None:
    file.write_text(text)


@contextmanager
def _folder(outcome: Outcome) -> Iterator[Path]:
    """Yield an empty folder, and take from it how long runs took to go on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        notes = folder / "checkpoints" / "recoveries"
        if notes.exists():
            outcome.recoveries_s += map(float, notes.read_text().split())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=20, help="deaths at every edge, default 20")
    parser.add_argument("--seed", type=int, default=0, help="of the draws, default 0")
    options = parser.parse_args()
    begin_s = time.perf_counter()
    outcome = chaos(options.each, seed=options.seed)
    print("| edge | simulated | real |\n|---|---|---|")
    for edge in REAL:
        counts = [outcome.met[kind].get(edge.name, "-") for kind in ("simulated", "real")]
        print(f"| {edge.name} | {counts[0]} | {counts[1]} |")
    found = outcome.summary() | {"seconds": round(time.perf_counter() - begin_s, 1)}
    print_result("reliability.chaos", found, each=options.each, seeds=[options.seed])
    if outcome.differences:
        print(f"Ended otherwise: {outcome.differences}", file=sys.stderr)
    if found["lost"] or found["doubled"] or found["wrong_counts"] or not found["bit_exact"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
