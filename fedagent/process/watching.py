"""How long a client's job may take in a process that can be ended.

Nobody can tell a job that hangs in a loop from one that is long. One that sleeps, waits for a lock
or has stopped itself uses no processor time, though. So, unless a limit is set, a job may compute
for as long as it likes, and ends when it has not computed for ten minutes, nor has anything that it
has started.
"""

import logging
import time
from ctypes import Structure, c_double, c_int64

from fedagent.formatting import duration
from fedagent.process.forking import cpu_seconds

NOTHING = -1
NOTICE_S = 60.0  # until the first line about a job; the next come after twice the time
IDLE_LIMIT_S = 600.0
_IDLE_CPU_S = 0.5  # in as long; what polls once a second uses less

logger = logging.getLogger("flwr.fedagent")


class CurrentJob(Structure):
    """What a process does now, in memory that it may share with its parent."""

    _fields_ = (("number", c_int64), ("begun_s", c_double))

    def begin(self, number: int) -> None:
        """Note a job and its time; the clock is the same in all processes."""
        self.begun_s = time.monotonic()
        self.number = number


class JobWatch:
    """Looks at one process's current job from time to time.

    Parameters
    ----------
    current : what the process does.
    process_id : of the process, which leads a group.
    limit_s : seconds of real time that a job may take; None for as long as it computes.
    setting : the name under which users set this limit.
    """

    def __init__(
        self, current: CurrentJob, process_id: int, limit_s: float | None, setting: str
    ) -> None:
        self._current, self._process_id, self._limit_s = current, process_id, limit_s
        self._setting = setting
        self._number = NOTHING
        self._notice_s = self._measured_s = self._computed_s = 0.0
        self._cpu_s: float | None = None

    def why_ended(self, whose: str) -> str | None:
        """Return why the job should end now, if it should; say so if it is long.

        Parameters
        ----------
        whose : the one whose answer is awaited, for the line about a long job.
        """
        now_s = time.monotonic()
        if self._number != self._current.number:
            self._number, self._notice_s = self._current.number, NOTICE_S
            self._cpu_s, self._measured_s, self._computed_s = None, now_s, now_s
        lasted_s = now_s - self._current.begun_s
        if self._limit_s is not None and lasted_s > self._limit_s:
            return f"the job took longer than {self._setting}={self._limit_s:g}: it was ended"
        idle_s = self._idle_s(now_s)
        if self._limit_s is None and idle_s >= IDLE_LIMIT_S:
            return (
                f"the job used no processor time for {duration(idle_s)} (a deadlock, or a wait for "
                f"what never comes): it was ended; {self._setting} sets another limit"
            )
        if lasted_s >= self._notice_s:
            self._say(whose, lasted_s, idle_s)
            self._notice_s *= 2
        return None

    def _idle_s(self, now_s: float) -> float:
        """Return for how long it has not computed, measured a few times a minute."""
        if now_s - self._measured_s >= min(NOTICE_S, IDLE_LIMIT_S) / 4:
            self._measured_s, used_s = now_s, cpu_seconds(self._process_id)
            if used_s is None:
                self._computed_s = now_s
            elif self._cpu_s is None or used_s - self._cpu_s >= _IDLE_CPU_S:
                self._cpu_s, self._computed_s = used_s, now_s
        return now_s - self._computed_s

    def _say(self, whose: str, lasted_s: float, idle_s: float) -> None:
        if self._limit_s is not None:
            end = f"after {self._setting}={self._limit_s:g}"
        else:
            end = f"after {duration(IDLE_LIMIT_S)} without any ({self._setting} sets a limit)"
        logger.warning(
            "No answer from %s for %.0f s: worker process %d last used processor time %.0f s "
            "ago. The job is ended %s.",
            whose,
            lasted_s,
            self._process_id,
            idle_s,
            end,
        )
