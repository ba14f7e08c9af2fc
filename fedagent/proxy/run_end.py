"""How a run ends, in Flower's words: its ``Result``, and its ``should_stop``."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.serverapp.strategy import Result

from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd


@dataclass(repr=False)
class RunResult(Result):
    """Flower's ``Result``, which prints as it does, and why and how the run ended.

    Attributes
    ----------
    end : of a run that goes on, that it has not ended.
    """

    end: RunEnd = field(default_factory=lambda: RunEnd("stopped", "the run has not ended"))


class ShouldStop:
    """Flower's ``should_stop(server_round, result)`` as a stopping condition: asked once a round.

    Parameters
    ----------
    should_stop : the user's question; see ``Strategy.start`` of Flower 1.43.
    result : what the run has brought so far.
    """

    def __init__(self, should_stop: Callable[[int, Result], bool], result: Result) -> None:
        self._should_stop, self._result = should_stop, result
        self._asked_at = 0

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        if statistics.server_round == self._asked_at:
            return None
        self._asked_at = statistics.server_round
        stops = self._should_stop(statistics.server_round, self._result)
        return f"should_stop after round {statistics.server_round}" if stops else None
