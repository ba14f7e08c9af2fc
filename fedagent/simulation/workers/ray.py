"""Client work on a Ray cluster: where a simulation outgrows one machine."""

import faulthandler
import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import torch
from flwr.clientapp import ClientApp

from fedagent.errors import ConfigurationError, imported, require
from fedagent.simulation.workers.base import Executor, Pending, Work, crash_of, run_work
from fedagent.simulation.workers.shared_memory import pickled
from fedagent.simulation.workers.work import ClientResult, WorkItem, load_app

logger = logging.getLogger("flwr.fedagent")

T = TypeVar("T")

_TRIES = 3  # of a task whose machine dies


class Ray(Executor):
    """Ray tasks, each with one CPU and one torch thread, that answer as `Processes` would.

    Ray keeps its worker processes, and each of them loads the application once. A version's arrays
    are put into Ray's object store once. A task whose worker dies is answered with an error; Ray
    replaces the worker.

    Parameters
    ----------
    client_app : an app, or ``"module:attribute"`` that the cluster's machines can import.
    workers : tasks at the same time, at most, >= 1; None for as many as the cluster has CPUs.
    address : of the cluster, as ``ray.init`` takes it; None starts one on this machine, unless this
        process is connected to one already.
    job_limit_s : seconds of real time that a task may take; None for ever.

    Raises
    ------
    DataUnavailableError
        If Ray is not installed.
    ConfigurationError
        If the cluster cannot be reached.
    """

    def __init__(
        self,
        client_app: ClientApp | str,
        workers: int | None = None,
        address: str | None = None,
        job_limit_s: float | None = None,
    ) -> None:
        require(workers is None or workers >= 1, f"workers={workers} must be at least 1 with Ray.")
        ray = imported("ray", "fedagent[simulation]", "runtime=ray")
        load_app(client_app, ClientApp)  # an app that cannot be loaded should fail here
        self._ray = ray
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            try:
                ray.init(address=address, num_cpus=workers, logging_level=logging.WARNING)
            except (ConnectionError, ValueError) as error:
                raise ConfigurationError(f"Cannot reach Ray at {address!r}: {error}") from error
        # In a list, so that Ray hands over the reference and not, with every task, a new copy.
        self._app = client_app if isinstance(client_app, str) else [ray.put(client_app)]
        self._task = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._job_limit_s = job_limit_s
        self._stored: dict[int, tuple[bytes, Any]] = {}
        self._under_way: dict[Pending[Any], tuple[Work, Callable[[], Any], Any]] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Hand the item to the cluster, whose own scheduler orders the tasks."""
        return self._begin(item)

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Hand the items to the cluster as one task."""
        return self._begin(items)

    def result(self, future: Pending[T]) -> T:
        """Wait for a task's answer."""
        work, begin, reference = self._under_way.pop(future)
        errors = self._ray.exceptions
        for tried in range(_TRIES):
            if tried:
                logger.warning("A machine of the Ray cluster is gone; its job is done again.")
                reference = begin()
            try:
                content, arrays = self._ray.get(reference)
                return cast(T, pickle.loads(content, buffers=arrays))
            except (errors.NodeDiedError, errors.ObjectLostError):
                continue
            except errors.RayError:
                break
        return cast(T, crash_of(work))

    def close(self) -> None:
        """Cancel what was not fetched; stop Ray, if it was started here."""
        for *_, reference in self._under_way.values():
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)
        if self._owns_ray:
            self._ray.shutdown()

    def _begin(self, work: Work) -> Pending[Any]:
        content, arrays = pickled(work)
        # What was stored for the work before is most of what this one needs: its version.
        self._stored = {
            id(data): self._stored.get(id(data)) or (data, self._ray.put(data)) for data in arrays
        }
        stored = [self._stored[id(data)][1] for data in arrays]
        begin = partial(self._task.remote, self._app, self._job_limit_s, content, *stored)
        future: Pending[Any] = Pending()
        self._under_way[future] = work, begin, begin()
        return future


def _run(
    app: str | list[Any], limit_s: float | None, content: bytes, *arrays: bytes
) -> tuple[bytes, list[bytes]]:
    torch.set_num_threads(1)
    work = pickle.loads(content, buffers=arrays)
    loaded = _loaded(app if isinstance(app, str) else app[0])
    with _ended_after(limit_s):
        return pickled(run_work(loaded, work, is_own=True))


@contextmanager
def _ended_after(limit_s: float | None) -> Iterator[None]:
    """End this process, which Ray then replaces, if what is done here takes longer."""
    if limit_s is None or limit_s == math.inf:
        yield
        return
    faulthandler.dump_traceback_later(limit_s, exit=True, file=2)  # the real standard error
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1)
def _loaded(reference: Any) -> ClientApp:
    if isinstance(reference, str):
        return cast(ClientApp, load_app(reference, ClientApp))
    import ray  # noqa: PLC0415

    return cast(ClientApp, ray.get(reference))
