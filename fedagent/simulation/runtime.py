"""What does the clients' work in a simulation, as a configuration says it."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from flwr.clientapp import ClientApp

from fedagent.errors import Interval, check_fields, require
from fedagent.simulation.workers.base import Executor
from fedagent.simulation.workers.checked import CheckedExecutor
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from fedagent.simulation.workers.vectorised import VectorisedExecutor
from fedagent.simulation.workers.work import TrainsTogether, load_app


@dataclass(frozen=True)
class Runtime:
    """How the work of simulated clients is done.

    What comes out is the same, bytes included, for apps that keep nothing in their process from one
    message to the next; `check` tells whether one does.

    Parameters
    ----------
    workers : worker processes; 0 does the work in this process; None takes one per CPU core.
    vectorise : whether clients at work at the same time are trained as one batch, for apps that
        can (`build_client_app`): "never"; "always", where each client's model comes out as alone
        only up to rounding; "auto", which finds out with the first clients which is faster, so
        that the last bits may differ from run to run.
    group_size : clients per batch, at most, >= 2.
    backend : "processes" on this machine, or "ray".
    address : of a Ray cluster; None starts Ray on this machine.
    job_limit_s : seconds of real time, > 0, that one client's job may take in a worker, where it
        then counts as a failure; None lets it take as long as it computes, and ends it after ten
        minutes without any use of the processor.
    check : whether some jobs are done twice, in a worker and in a process that is new, and what
        differs is named in a warning: an app that keeps something in its process gives other bytes
        with another number of workers. Does the work in one worker if there is none.
    """

    workers: Annotated[int | None, Interval("[0, inf)")] = 0
    vectorise: Literal["never", "always", "auto"] = "never"
    group_size: Annotated[int, Interval("[2, inf)")] = 32
    backend: Literal["processes", "ray"] = "processes"
    address: str | None = None
    job_limit_s: Annotated[float | None, Interval("(0, inf]")] = None
    check: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.address is None or self.backend == "ray",
            f"address={self.address!r} belongs to backend=ray.",
        )
        require(
            self.job_limit_s is None or self.workers != 0,
            f"job_limit_s={self.job_limit_s} needs a worker process, which can be ended: set "
            "workers=1 or more.",
        )

        require(
            not self.check or self.vectorise == "never",
            f"check=True looks at clients one by one: it needs vectorise=never, not "
            f"{self.vectorise}.",
        )

    def executor(self, client_app: ClientApp | str) -> Executor:
        """Return what does the work of `client_app`, an app or ``"module:attribute"``.

        Raises
        ------
        ConfigurationError
            If the app cannot be loaded, cannot be vectorised although it must, or Ray is missing.
        """
        executor = self._workers(client_app)
        if self.check:
            return CheckedExecutor(executor, lambda: Processes(client_app, 1, self.job_limit_s))
        if self.vectorise == "never":
            return executor
        can = isinstance(load_app(client_app, ClientApp), TrainsTogether)
        require(
            can or self.vectorise == "auto",
            "vectorise=always: this ClientApp trains one client at a time. Build it with "
            "fedagent.client.build_client_app, or set vectorise=never.",
        )
        return VectorisedExecutor(executor, self.vectorise, self.group_size) if can else executor

    def _workers(self, client_app: ClientApp | str) -> Executor:
        if self.backend == "ray":
            from fedagent.simulation.workers.ray import Ray  # noqa: PLC0415  (an extra)

            return Ray(client_app, self.workers, self.address, self.job_limit_s)
        workers = _num_cores() if self.workers is None else self.workers
        if workers == 0 and not self.check:
            return Inline(client_app)
        return Processes(client_app, workers or 1, self.job_limit_s)


def _num_cores() -> int:
    """Return how many CPU cores this process may use; macOS does not say, so all of them there."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
