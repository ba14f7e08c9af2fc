"""Jobs that all last about equally long, transfers included: a pace for the fleet.

    duration_i(B) = o_i + c_i B          o_i: latency and transfers, c_i: seconds per step
    B_i = floor((D - o_i) / c_i), between 1 and B_max

No slot is held long, whatever the node's speed, and what every node knows comes in at the same
rate. Overhead and speed of a node are learned from jobs of different sizes: its first one has
`first_steps`, its second one twice as many or more, or fewer if the first had B_max.

D is given, or follows from what was seen (``pace_s=None``):

    D = max( o / share,  o + c B ),   o and c medians over the newest jobs

so that at most `share` of a typical job is communication, and a typical node does at least B steps.
Nodes that are slower than that do one step and are heard seldom, which matters little at first and
much later on. A pace that was found therefore grows with the run's time t, until they keep up:

    D <- max( D, min( run_share t,  o + c of the slowest ) )     the slowest of the newest jobs

With `bytes_per_s` given jobs are longer, so that fewer of them bring no more bytes than that:

    D >= c m / bytes_per_s                c nodes at work, m the newest jobs' mean bytes, both ways

which holds as long as `max_steps` let fast nodes work for so long. A job that is queued at a node
takes its bytes when the one before is done.

DyLU (arXiv 2401.09135) sizes jobs by computation alone: where the link is the slow part all its
jobs become one step. FedCompass (2309.14675) lets groups arrive together and makes those wait that
are early. TimelyFL (2304.06947) sets D per round and drops what is late.
"""

import math
import statistics
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler
from fedagent.scheduling.cost import Costs

_WINDOW = 200  # of the newest jobs, which the pace is found from
_NEWEST_BYTES = 0.1  # weight of the newest job in the mean bytes of a job
_EVERY = 20  # jobs from one look at them to the next


class Paced(Scheduler):
    """Random nodes, with as many steps as make their job last D seconds; O(1) per choice.

    Parameters
    ----------
    pace_s : D > 0 in seconds; None finds it.
    typical_steps : B >= 1, steps of a typical node's job where communication costs nothing.
    max_steps : B_max >= 1.
    communication_share : largest share of a typical job that is communication, in (0, 1].
    run_share : largest share of the run's time so far that a job lasts for slower nodes' sake, in
        [0, 1); 0 leaves them behind. A given pace stays as it is.
    bytes_per_s : most bytes per second that all jobs' messages take together, both ways, > 0.
    first_steps : steps of a node's first job, >= 1.
    ema : weight of the newest job in what is known of a node, in (0, 1].
    learning_rate, seed : see `Scheduler`.
    """

    def __init__(
        self,
        pace_s: float | None = None,
        typical_steps: int = 2,
        max_steps: int = 32,
        communication_share: float = 0.5,
        run_share: float = 0.05,
        bytes_per_s: float | None = None,
        first_steps: int = 1,
        ema: float = 0.5,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, seed=seed)
        require(pace_s is None or pace_s > 0, f"Paced: pace_s={pace_s} must be positive.")
        require(
            1 <= first_steps <= max_steps and 1 <= typical_steps <= max_steps,
            f"Paced: first_steps={first_steps} and typical_steps={typical_steps} must lie between "
            f"1 and max_steps={max_steps}.",
        )
        require(
            0.0 < communication_share <= 1.0,
            f"Paced: communication_share={communication_share} must lie in (0, 1].",
        )
        require(0.0 <= run_share < 1.0, f"Paced: run_share={run_share} must lie in [0, 1).")
        require(
            bytes_per_s is None or bytes_per_s > 0,
            f"Paced: bytes_per_s={bytes_per_s} must be positive.",
        )
        self._given_s, self._typical_steps, self._max_steps = pace_s, typical_steps, max_steps
        self._share, self._first_steps = communication_share, first_steps
        self._run_share = run_share
        self._bytes_per_s = bytes_per_s
        self._at_work: Counter[int] = Counter()
        self._bytes_per_job = 0.0
        self.costs = Costs(ema)
        self._newest: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._num_observed = 0
        self._pace_s, self._slowest_s = pace_s, 0.0

    @property
    def pace_s(self) -> float | None:
        """D, as it was found or given; None as long as no job has told anything."""
        return self._pace_s

    def choose(self, idle: IdleNodes) -> int:
        """Return a uniformly random idle node."""
        return idle.random(self.generator)

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Return as many steps as fit into D."""
        self._at_work[node_id] += 1
        return Assignment(node_id, self._steps(node_id, now_s), self.learning_rate)

    def _steps(self, node_id: int, now_s: float) -> int:
        known = self.costs.of(node_id)
        if known is None:
            return self._first_steps
        # Of jobs of one size nobody can tell overhead and speed apart.
        may_grow = not known.is_told_apart and known.last_steps < self._max_steps
        least = min(2 * known.last_steps, self._max_steps) if may_grow else 1
        if self._pace_s is None:
            return least
        pace_s = max(self._pace_s, min(self._run_share * now_s, self._slowest_s))
        fit = (self._within_budget_s(pace_s) - known.overhead_s) / known.seconds_per_step
        return max(least, math.floor(min(fit, self._max_steps) + 1e-9))

    def _within_budget_s(self, pace_s: float) -> float:
        """Return `pace_s`, or longer if so short jobs would take more bytes than are allowed."""
        if self._bytes_per_s is None:
            return pace_s
        return max(pace_s, len(self._at_work) * self._bytes_per_job / self._bytes_per_s)

    def lost(self, node_id: int) -> None:
        """Count it as ended."""
        self._end(node_id)

    def _end(self, node_id: int) -> None:
        self._at_work[node_id] -= 1
        if self._at_work[node_id] <= 0:
            del self._at_work[node_id]

    def observe(self, observation: Observation) -> None:
        """Learn what the node's steps and its messages cost."""
        self._end(observation.node_id)
        weight = _NEWEST_BYTES if self._bytes_per_job else 1.0
        self._bytes_per_job += weight * (observation.num_bytes - self._bytes_per_job)
        self.costs.observe(observation.node_id, observation.local_steps, observation.duration_s)
        known = self.costs.of(observation.node_id)
        if self._given_s is not None or known is None or not known.is_told_apart:
            return
        self._newest.append((known.overhead_s, known.seconds_per_step))
        self._num_observed += 1
        if self._num_observed % _EVERY == 0 or self._num_observed < _EVERY:
            self._pace_s = self._found_s()
            self._slowest_s = max(o + c for o, c in self._newest)

    def _found_s(self) -> float:
        overhead_s = statistics.median(o for o, _ in self._newest)
        seconds_per_step = statistics.median(c for _, c in self._newest)
        return max(overhead_s / self._share, overhead_s + seconds_per_step * self._typical_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and what is known of nodes."""
        return super().state_dict() | {
            "costs": self.costs.state_dict(),
            "newest": [list(pair) for pair in self._newest],
            "num_observed": self._num_observed,
            "at_work": sorted(self._at_work.elements()),
            "bytes_per_job": self._bytes_per_job,
            "pace_s": self._pace_s,
            "slowest_s": self._slowest_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.costs.load_state_dict(state["costs"])
        self._newest = deque(((o, c) for o, c in state["newest"]), maxlen=_WINDOW)
        self._num_observed = int(state["num_observed"])
        self._pace_s, self._slowest_s = state["pace_s"], state["slowest_s"]
        self._at_work = Counter(int(node) for node in state["at_work"])
        self._bytes_per_job = float(state["bytes_per_job"])
