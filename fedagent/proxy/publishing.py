"""How versions come out: of an update that completes one, by the clock, and only sound ones."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from fedagent.callbacks import Callback
from fedagent.model import FlatModel
from fedagent.proxy.run_end import RunResult
from fedagent.proxy.safeguard import Safeguard
from fedagent.proxy.versions import Versions
from fedagent.statistics import Statistics


class Publishing:
    """Publishes what the rule has made of the model.

    Parameters
    ----------
    versions : where the model becomes a version.
    safeguard : says whether it may.
    statistics, result, callbacks : who hears of it.
    """

    UNSAVED: ClassVar = ("_callbacks",)

    def __init__(
        self,
        versions: Versions,
        safeguard: Safeguard,
        statistics: Statistics,
        result: RunResult,
        callbacks: Sequence[Callback],
    ) -> None:
        self._versions, self._safeguard = versions, safeguard
        self._statistics, self._result, self._callbacks = statistics, result, callbacks

    def publish(self) -> None:
        """Publish the model as the next version."""
        self._versions.publish_next()
        self._statistics.published(self._versions.model.version)
        self._result.arrays = self._versions.current.payload
        for callback in self._callbacks:
            callback.on_version(self._statistics)

    def publish_sound(self, move: Callable[[FlatModel, float], bool]) -> None:
        """Let the rule move the model by itself; publish what it made, or take it back."""
        is_published = move(self._versions.model, self._statistics.now_s)
        if not self._safeguard.is_sound(is_published):
            self._safeguard.undo()
            return
        self._statistics.buffered = self._versions.rule.pending
        if is_published:
            self.publish()

    def flush(self) -> None:
        """Publish what waits in the rule, if anything does."""
        if self._versions.rule.pending:
            self.publish_sound(lambda model, _: self._versions.rule.flush(model))

    def is_due(self) -> bool:
        """Whether the rule has something to do by now."""
        return self._versions.rule.next_due_s() <= self._statistics.now_s

    def advance(self, is_over: Callable[[], bool]) -> None:
        """Let the rule do what is due by now, as long as the run is not over."""
        rule = self._versions.rule
        while self.is_due() and not is_over():
            self.publish_sound(rule.advance)
        self._statistics.edge_bytes_between_regions = rule.bytes_between_regions
        self._statistics.lost = rule.lost
        for node_id, weight in rule.take_withdrawn().items():
            self._statistics.weigh(node_id, -weight)
