"""One client's job: what it depends on, how it is done, and what comes of it."""

import importlib
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, cast, runtime_checkable

from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.clientapp import ClientApp

from fedagent._flower import ErrorCode, record_of, with_content
from fedagent.errors import ConfigurationError
from fedagent.formatting import place_of, printable
from fedagent.process.containment import ClientCodeError, contained, contained_reply
from fedagent.simulation.workers.randomness import seed_generators
from fedagent.wire.records import quick

logger = logging.getLogger("flwr.fedagent")


class WorkItem(NamedTuple):
    """One message for one node, with all the ClientApp may depend on.

    Attributes
    ----------
    message : the request.
    run_id, node_id, node_config, run_config : what the node's Context holds.
    state : the node's Context state, which comes back with the result.
    seed : of the global generators while the ClientApp runs: (run seed, node, job), or one number.
    """

    message: Message
    run_id: int
    node_id: int
    node_config: UserConfig
    run_config: UserConfig
    state: RecordDict
    seed: int | Sequence[int]


class ClientResult(NamedTuple):
    """A reply, or the Error in its place, and the node's state after the work."""

    content: RecordDict | Error
    state: RecordDict


@runtime_checkable
class TrainsTogether(Protocol):
    """A ClientApp that can do several training requests as one batch; see `TaskApp`."""

    def train_together(
        self, requests: Sequence[tuple[Message, Context]], begin: Callable[[int], None]
    ) -> dict[int, Message]:
        """Return the replies to the requests that could share a batch, by index."""


def run_client(app: ClientApp, item: WorkItem, is_own: bool = False) -> ClientResult:
    """Run a ClientApp as Flower would; whatever it raises becomes an error, see `contained`.

    The global generators start from the item's seed and are left where the work ends. The app may
    take the message's records apart: it gets a copy unless they are this process's own.
    """
    context = _context(item, item.state)
    request = item.message if is_own else private_copy(item.message)
    seed_generators(item.seed)
    try:
        return _result(contained_reply(app, request, context), context)
    except ClientCodeError as error:  # whatever the user's code does, its node failed
        raised = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
        return ClientResult(raised, context.state)


def run_clients(
    app: ClientApp, items: Sequence[WorkItem], is_own: bool = False
) -> list[ClientResult]:
    """Do items as one batch as far as the app can, and the others one by one."""
    done: dict[int, ClientResult] = {}
    if len(items) > 1 and isinstance(app, TrainsTogether):
        # What is left out, or fails halfway, is done again alone: from the state as it was.
        contexts = [_context(item, private_records(item.state)) for item in items]
        requests = [(i.message, c) for i, c in zip(items, contexts, strict=True)]
        try:
            with contained():
                replies = app.train_together(
                    requests, lambda index: seed_generators(items[index].seed)
                )
                done = {i: _result(reply, contexts[i]) for i, reply in replies.items()}
        except ClientCodeError as error:  # who causes it is found by doing them one by one
            _say_why(str(error))
    return [done.get(i) or run_client(app, item, is_own) for i, item in enumerate(items)]


@lru_cache
def _say_why(reason: str) -> None:
    logger.warning("These clients cannot be trained as one batch (%s): one by one.", reason)


def _context(item: WorkItem, state: RecordDict) -> Context:
    return Context(
        run_id=item.run_id,
        node_id=item.node_id,
        node_config=dict(item.node_config),
        state=state,
        run_config=dict(item.run_config),
    )


def _result(reply: Message, context: Context) -> ClientResult:
    if reply.has_error():
        error = Error(reply.error.code, printable(str(reply.error.reason or "")))
        return ClientResult(error, context.state)
    return ClientResult(reply.content, context.state)


def private_copy(message: Message) -> Message:
    """Return a message that the ClientApp may take apart without touching the sender's records."""
    return with_content(message, private_records(message.content))


def private_records(records: RecordDict) -> RecordDict:
    """Return new records with the same values; bytes of arrays, which cannot change, are shared.

    One record of arrays is sent to many nodes, and ``to_torch_state_dict(keep_input=False)`` would
    empty it for all of them.
    """
    private = {
        key: quick(record) if isinstance(record, ArrayRecord) else _private(record)
        for key, record in records.items()
    }
    return record_of(RecordDict, private)


def _private(record: ConfigRecord | MetricRecord) -> ConfigRecord | MetricRecord:
    """Return a record that shares no more than bytes; its values were checked when it was made."""
    private = cast(ConfigRecord, record.copy())  # which may hold whatever metrics may
    for key, value in record.items():
        if isinstance(value, list):
            private[key] = value.copy()
    return private


def load_app(reference: object, kind: type) -> object:
    """Return an app given as an object or as ``"module:attribute"``, Flower's notation.

    Raises
    ------
    ConfigurationError
        If there is no such module or attribute, or if it is something else.
    """
    app = _imported(reference, kind) if isinstance(reference, str) else reference
    if not isinstance(app, kind):
        raise ConfigurationError(f"{reference!r} is a {type(app).__name__}, not a {kind.__name__}.")
    return app


def _imported(reference: str, kind: type) -> object:
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does when it is imported
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigurationError(
                f"Cannot load {reference!r}: {error}. Write it as 'module:attribute' and run from "
                "the folder that holds the module."
            ) from error
        logger.debug("Importing %s failed", module_name, exc_info=True)
        raise ConfigurationError(
            f"Importing {module_name} failed, at {place_of(error)}: {type(error).__name__}: "
            f"{error}. Mend it there, or install what is missing."
        ) from error
    name = attribute or "app"
    if not hasattr(module, name):
        apps = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise ConfigurationError(
            f"Cannot load {reference!r}: {module.__file__} has no {name!r}; its {kind.__name__}s "
            f"are: {', '.join(apps) or 'none'}."
        )
    return getattr(module, name)
