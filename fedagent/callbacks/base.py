"""What a run tells those who watch it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord

from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Outcome

logger = logging.getLogger("flwr.fedagent")


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one dispatch.

    Attributes
    ----------
    dispatch : what was asked.
    outcome : how it ended.
    reason : the counted reason; empty when applied.
    detail : one sentence for a log; empty when applied, unless the update counts nothing.
    duration_s : seconds on the run's clock since its node could begin with it.
    staleness : of the update that was applied, in versions; None if there is none.
    bytes_up : serialised model bytes of the reply; 0 if none came.
    num_examples : of the update that was applied; None if there is none.
    discount : s(tau) in [0, inf), what the rule's staleness weight makes of the update that was
        applied; None if there is none.
    """

    dispatch: Dispatch
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    duration_s: float = 0.0
    staleness: int | None = None
    bytes_up: int = 0
    num_examples: float | None = None
    discount: float | None = None


class Callback:
    """Override what you want to hear. Calls come from the thread that owns the model.

    `statistics` is live: read it, do not keep it. An exception raised here ends the run.
    """

    def on_start(self, statistics: Statistics) -> None:
        """Run before anything else, also before nodes are waited for."""

    def on_dispatch(self, statistics: Statistics, dispatch: Dispatch) -> None:
        """Run after a job or an evaluation was handed to a node."""

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Run after a dispatch ended."""

    def on_version(self, statistics: Statistics) -> None:
        """Run after ``statistics.version`` was published."""

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Run after metrics for a version came in."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this callback: plain values, as JSON holds them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; before `on_start`, in a run that is resumed."""

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Run when the run ended, once; ``arrays()`` builds the final model.

        It may come without `on_start`, when that failed. An exception raised here keeps nobody else
        from hearing of the end.
        """


def tell_end(
    callbacks: Iterable[Callback],
    statistics: Statistics,
    end: RunEnd,
    arrays: Callable[[], ArrayRecord],
    because: BaseException | None = None,
) -> None:
    """Tell every callback that the run ended, then raise the first error that one of them raised.

    Where an error ended the run (`because`) the caller raises that one: what comes after it, often
    of the same cause, is a line in the log.
    """
    first = because
    for callback in callbacks:
        try:
            callback.on_end(statistics, end, arrays)
        except BaseException as error:  # Ctrl-C too: the others still have files to close
            if first is None:
                first = error
            else:
                logger.error("At the run's end %s failed too: %s", type(callback).__name__, error)
    if first is not None and first is not because:
        raise first
