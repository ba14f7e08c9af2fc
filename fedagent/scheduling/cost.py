"""What a job costs a node: so much whatever its size, and so much per step.

    duration = o + c B          o: latency and transfers, c: seconds per step

Both are the least-squares line through a node's jobs, older ones weighing less and less. As long as
all had the same size nothing tells them apart, and all of the duration counts as computation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedagent.errors import require

_SHORTEST_S = 1e-9  # a clock too coarse for a job must not make its node infinitely fast
_LEAST_SHARE = 1e-3  # of a job that is computation, whatever noise says
_LEAST_SPREAD = 1e-9  # of the steps; a line that decays beyond it ends in rounding errors


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of one node.

    Attributes
    ----------
    overhead_s : o >= 0.
    seconds_per_step : c > 0.
    is_told_apart : whether jobs of two sizes were seen.
    last_steps : B of its newest job.
    """

    overhead_s: float
    seconds_per_step: float
    is_told_apart: bool
    last_steps: int


@dataclass(slots=True)
class _Jobs:
    """Means over a node's jobs and their spread about them, the newest weighing most."""

    last_steps: int
    steps: float
    duration: float
    variance: float = 0.0
    covariance: float = 0.0
    is_told_apart: bool = False
    num_jobs: int = 1

    def add(self, steps: int, duration_s: float, ema: float | None) -> None:
        """Take in a job."""
        self.num_jobs += 1
        ema = 1.0 / self.num_jobs if ema is None else ema
        off, late = steps - self.steps, duration_s - self.duration
        self.steps += ema * off
        self.duration += ema * late
        variance = (1.0 - ema) * (self.variance + ema * off * off)
        if variance >= (_LEAST_SPREAD * steps) ** 2:
            self.covariance = (1.0 - ema) * (self.covariance + ema * off * late)
            self.variance = variance
        self.last_steps = steps
        self.is_told_apart |= off != 0.0

    def cost(self) -> Cost:
        """Return the line through the jobs, with neither part negative.

        Once all jobs that still weigh have had one size, the line is what it was.
        """
        all_of_it = self.duration / self.steps
        slope = self.covariance / self.variance if self.variance > 0.0 else all_of_it
        slope = min(max(slope, _LEAST_SHARE * all_of_it), all_of_it)
        overhead_s = max(0.0, self.duration - slope * self.steps)
        return Cost(overhead_s, slope, self.is_told_apart, self.last_steps)


class Costs:
    """Overhead and seconds per step by node; observing and reading are O(1).

    Parameters
    ----------
    ema : weight of the newest job, in (0, 1]; None: all jobs weigh the same.
    """

    def __init__(self, ema: float | None = 0.5) -> None:
        require(
            ema is None or 0.0 < ema <= 1.0,
            f"ema={ema} must lie in (0, 1]: it weighs the newest job.",
        )
        self._ema = ema
        self._jobs: dict[int, _Jobs] = {}

    def observe(self, node_id: int, local_steps: int | None, duration_s: float) -> None:
        """Learn from one job of `local_steps`; nothing can be learned if that is unknown."""
        if not local_steps:
            return
        duration_s = max(duration_s, _SHORTEST_S)
        if known := self._jobs.get(node_id):
            known.add(local_steps, duration_s, self._ema)
        else:
            self._jobs[node_id] = _Jobs(local_steps, local_steps, duration_s)

    def of(self, node_id: int) -> Cost | None:
        """Return what is known of a node, or None before its first finished job."""
        jobs = self._jobs.get(node_id)
        return None if jobs is None else jobs.cost()

    def state_dict(self) -> dict[str, Any]:
        """Return what has been learned."""
        return {"jobs": [[node, asdict(jobs)] for node, jobs in self._jobs.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._jobs = {int(node): _Jobs(**jobs) for node, jobs in state["jobs"]}
