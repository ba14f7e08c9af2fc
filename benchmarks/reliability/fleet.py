"""A real fleet on one machine whose processes are killed (SIGKILL), one after the other, anew.

The SuperLink, a SuperNode or the ServerApp dies, is started again, and so on, until each has died
so many times; a ServerApp's successor resumes its run. Every update adds 1 to an element of its
own, so the model says what was lost and what counted twice.

    python -m benchmarks.reliability.fleet [--superlink 20] [--nodes 20] [--serverapp 10] [--seed 0]

is `make chaos-fleet`, and takes less than ten minutes.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import print_result
from benchmarks.reliability.real_fleet import Fleet, running
from benchmarks.reliability.runs import account

NODES = 4
UPDATES = 2  # that must be applied between two deaths
SIZE = 20_000  # elements of the model, one for a job


class Deaths:
    """Kills processes of a fleet and starts them again.

    Attributes
    ----------
    waited_s : by kind of process, from each death to the second new update.
    """

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet, self._random = fleet, random.Random(seed)
        self.waited_s: dict[str, list[float]] = {}

    def happen(self, counts: dict[str, int]) -> None:
        """Let every kind of process die so many times, in any order."""
        ways: dict[str, Callable[[], None]] = {
            "superlink": self._superlink,
            "node": self._node,
            "serverapp": self._server_app,
        }
        order = [kind for kind, count in counts.items() for _ in range(count)]
        self._random.shuffle(order)
        for number, kind in enumerate(order, 1):
            time.sleep(self._random.uniform(0, 1))
            applied, begin_s = len(self.applied()), time.monotonic()
            ways[kind]()
            self._fleet.wait(
                lambda least=applied + UPDATES: len(self.applied()) >= least,
                f"updates after the death of a {kind}",
            )
            took_s = time.monotonic() - begin_s
            self.waited_s.setdefault(kind, []).append(took_s)
            print(f"{number}/{len(order)} {kind}: {took_s:.1f} s", file=sys.stderr, flush=True)

    def applied(self) -> set[str]:
        """Return the tokens of all updates that were acknowledged."""
        return {s["token"] for s in self._fleet.settlements() if s["outcome"] == "applied"}

    def _superlink(self) -> None:
        self._fleet.kill("superlink")
        self._fleet.start_superlink()

    def _node(self) -> None:
        number = self._random.randrange(NODES)
        self._fleet.kill(f"node-{number}")
        self._fleet.start_node(number)

    def _server_app(self) -> None:
        os.kill(int((self._fleet.folder / "server-pid").read_text()), signal.SIGKILL)
        self._fleet.start_run()


def chaos(counts: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Let processes die, and the run end; return what became of its updates."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = "--isolation=process", f"--database={folder}/superlink.db"
        fleet = Fleet(
            folder,
            *flags,
            num_nodes=NODES,
            concurrency=2 * NODES,  # one that has died holds its slot for a while
            seconds=0.1,
            parameters=SIZE,
            checkpoint_every=10,
        )
        deaths = Deaths(fleet, seed)
        with running(fleet, NODES):
            deaths.happen(counts)
            summary = fleet.finish()
        found = account(folder)
        # What the SuperLink did not take was asked of nobody, and is in no log.
        taken = {s["token"] for s in fleet.settlements() if s["reason"] != "not-sent"}
        return {
            "deaths": counts,
            "end": summary["end"],
            **asdict(found),
            "all_dispatches_ended": len(taken) == summary["num_dispatches"] - summary["not_sent"],
            "seconds": round(summary["seconds"], 1),
            "updates_again_median_s": {
                kind: round(statistics.median(waited), 1)
                for kind, waited in deaths.waited_s.items()
            },
            "updates_again_most_s": {
                kind: round(max(waited), 1) for kind, waited in deaths.waited_s.items()
            },
            "node_idle_most_s": round(longest_idle_s(fleet.settlements()), 1),
        }


def longest_idle_s(settlements: list[dict[str, Any]]) -> float:
    """Return how long a node that delivered again had not delivered anything, at most."""
    last: dict[int, float] = {}
    longest = 0.0
    for settlement in settlements:
        if settlement["outcome"] == "applied":
            node, now_s = settlement["node"], settlement["now_s"]
            longest = max(longest, now_s - last.get(node, now_s))
            last[node] = now_s
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--superlink", type=int, default=20, help="its deaths, default 20")
    parser.add_argument("--nodes", type=int, default=20, help="deaths of nodes, default 20")
    parser.add_argument("--serverapp", type=int, default=10, help="its deaths, default 10")
    parser.add_argument("--seed", type=int, default=0, help="of the draws, default 0")
    options = parser.parse_args()
    counts = {
        "superlink": options.superlink,
        "node": options.nodes,
        "serverapp": options.serverapp,
    }
    begin_s = time.perf_counter()
    found = chaos(counts, options.seed) | {"wall_s": round(time.perf_counter() - begin_s, 1)}
    print(json.dumps(found, indent=2))
    print_result("reliability.fleet", found, nodes=NODES, seeds=[options.seed])
    is_right = found["all_dispatches_ended"] and found["end"] == "told to"
    if found["lost"] or found["doubled"] or found["wrong"] or not is_right:
        sys.exit(1)


if __name__ == "__main__":
    main()
