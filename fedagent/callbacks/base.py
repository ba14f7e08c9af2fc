"""What a run tells those who watch it."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import ArrayRecord

from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Outcome


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one dispatch.

    Attributes
    ----------
    dispatch : what was asked.
    outcome : how it ended.
    reason : the counted reason; empty when applied.
    detail : one sentence for a log; empty when applied.
    duration_s : seconds on the run's clock since its node could begin with it.
    staleness : of the update that was applied, in versions; None if there is none.
    """

    dispatch: Dispatch
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    duration_s: float = 0.0
    staleness: int | None = None


class Callback:
    """Override what you want to hear. Calls come from the thread that owns the model.

    `statistics` is live: read it, do not keep it. An exception raised here ends the run.
    """

    def on_start(self, statistics: Statistics) -> None:
        """Run before anything else, also before nodes are waited for."""

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Run after a dispatch ended."""

    def on_version(self, statistics: Statistics) -> None:
        """Run after ``statistics.version`` was published."""

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Run after metrics for a version came in."""

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Run when the run ended; ``arrays()`` builds the final model.

        It may come without `on_start`, when that failed, and twice, when another callback's failed.
        """
