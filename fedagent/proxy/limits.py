"""When a run ends by itself, and until when it may wait."""

from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.run_end import RunResult, ShouldStop
from fedagent.proxy.run_request import RunRequest
from fedagent.statistics import Statistics
from fedagent.stopping import MaxRounds, MaxVersions, RunEnd, Stopping, first_reason, next_due_s


class Limits:
    """The stopping conditions of a run.

    Parameters
    ----------
    request, options : name them.
    statistics : what conditions read.
    result : what Flower's ``should_stop`` is asked about.

    Attributes
    ----------
    until_s : when nobody may wait any more, in seconds since the run began.
    """

    def __init__(
        self,
        request: RunRequest,
        options: AsyncOptions,
        statistics: Statistics,
        result: RunResult,
    ) -> None:
        conditions: list[Stopping] = [MaxRounds(request.num_rounds), *options.stopping]
        if request.should_stop is not None:  # first: it is asked after the last round too
            conditions.insert(0, ShouldStop(request.should_stop, result))
        self._statistics = statistics
        self._conditions, self.until_s = conditions, next_due_s(conditions)

    def end(self) -> RunEnd | None:
        """Return the end that a stopping condition makes, if one holds."""
        reason = first_reason(self._conditions, self._statistics)
        return RunEnd("completed", reason) if reason is not None else None

    @property
    def are_past(self) -> bool:
        """Whether it is later than `until_s`."""
        return self._statistics.now_s >= self.until_s

    @property
    def allow_version(self) -> bool:
        """Whether another version may come out, whatever else has ended the run."""
        versions = [each for each in self._conditions if isinstance(each, MaxVersions)]
        return first_reason(versions, self._statistics) is None
