"""How long a run has heard of nobody, and what follows from it: a warning, and at last its end.

Pure: the caller passes the time, in seconds on the run's clock.
"""

import logging

logger = logging.getLogger("flwr.fedagent")


class Silence:
    """The time since the last reply, and the time since the last that was of use.

    Parameters
    ----------
    timeout_s : seconds without any reply after which a run is over.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._heard_s = self._succeeded_s = 0.0
        self._has_warned = False

    def heard(self, now_s: float) -> None:
        """Take note of a node's reply, be it a failure or late."""
        self._heard_s, self._has_warned = now_s, False

    def succeeded(self, now_s: float) -> None:
        """Take note of a reply to a job that was done."""
        self.heard(now_s)
        self._succeeded_s = now_s

    def next_due_s(self) -> float:
        """Return when the warning is due, or after it the end."""
        return self._heard_s + self._timeout_s * (1.0 if self._has_warned else 0.5)

    def warn_if_due(self, now_s: float, num_nodes: int) -> None:
        """Say, once per silence, that half of the timeout is over."""
        if not self._has_warned and now_s >= self.next_due_s():
            self._has_warned = True
            logger.warning(
                "No reply for %.0f s (%d nodes connected): the run ends after %g s of silence. If "
                "nodes need that long, raise timeout.",
                now_s - self._heard_s,
                num_nodes,
                self._timeout_s,
            )

    def over(self, now_s: float, is_idle: bool) -> float | None:
        """Return for how many seconds nothing came, if that is long enough to give up.

        Failures are replies, and end the silence; where nothing is in flight either (`is_idle`),
        a job must have been done in that time.
        """
        if now_s >= self._heard_s + self._timeout_s:
            return now_s - self._heard_s
        if is_idle and now_s > self._succeeded_s + self._timeout_s:
            return now_s - self._succeeded_s
        return None
