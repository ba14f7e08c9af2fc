"""One task of a ClientApp in a process that is warm already: Flower's runtime, minus the start."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedagent._flower.messages import ErrorCode
from fedagent.formatting import described
from fedagent.process.containment import ClientCodeError, contained_reply, safe_traceback

UNANSWERED = 2
"""The status of a task that has ended without a reply."""

_CLIENT_APP = "flwr.supernode.runtime.run_clientapp"


@dataclass(frozen=True)
class AppBundle:
    """The app that a message was for, and its Context without the state."""

    fab_id: str
    fab_version: str
    fab_hash: str
    context: Context


def run_client_app(
    spec: Any, loaded: AppBundle | None, on_input: Callable[[AppBundle], None], ends: bool
) -> int:
    """Do one task in this process; return its exit status, or `UNANSWERED`.

    Without a reply the task is not reported as finished: the SuperNode would wait for ever.

    Parameters
    ----------
    spec : flwr.supercore.superexec.executor.ExecutionSpec.
    loaded : the app that this process has installed and imported already.
    on_input : called with the app that the task is for, before it is loaded.
    ends : whether the process ends with the task. Otherwise Flower's way to exit, which kills the
        process after some seconds, must be kept from it.
    """
    module: Any = import_module(_CLIENT_APP)
    handlers: Any = import_module("flwr.supercore.exit.exit_handler")
    pull, install = module.pull_task_input, module.install_from_fab
    answers = _Answers(module.push_message, module.push_task_output)

    def pull_and_tell(client: Any) -> Any:
        message, context, run, fab = pull(client)
        known = Context(
            context.run_id, context.node_id, context.node_config, RecordDict(), context.run_config
        )
        on_input(AppBundle(run.fab_id, run.fab_version, fab.hash_str, known))
        answers.request = message
        return message, context, run, fab

    def install_unless_loaded(content: bytes, **kwargs: Any) -> Any:
        if loaded is None or hashlib.sha256(content).hexdigest() != loaded.fab_hash:
            return install(content, **kwargs)
        return None

    def end(code: int, **_: Any) -> NoReturn:
        handlers.trigger_exit_handlers(run_before_force_exit=True)
        handlers.trigger_exit_handlers(run_before_force_exit=False)
        sys.exit(0 if 0 <= code < 100 else 1)

    patched = {
        "pull_task_input": pull_and_tell,
        "install_from_fab": install_unless_loaded,
        "get_load_client_app_fn": _loader_of_contained(module.get_load_client_app_fn),
        "push_message": answers.push,
        "push_task_output": answers.finish,
    }
    patched |= {} if ends else {"flwr_exit": end}
    originals = {name: getattr(module, name) for name in patched}
    certificates = import_module("flwr.supercore.tls").validate_and_resolve_root_certificates
    try:
        vars(module).update(patched)
        module.run_clientapp(
            runtime_api_address=spec.runtime_api_address,
            token=spec.token,
            insecure=spec.insecure,
            certificates=certificates(spec.root_certificates_path, spec.insecure),
            parent_pid=spec.parent_pid if ends else None,
            runtime_dependency_install=spec.runtime_dependency_install,
        )
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    else:
        status = 0
    finally:
        vars(module).update(originals)
    return status if answers.is_pushed else UNANSWERED


class _Answers:
    """What a task tells its SuperNode, which must not hear of an end without a reply."""

    def __init__(self, push: Callable[..., None], finish: Callable[..., None]) -> None:
        self._push, self._finish = push, finish
        self.request: Message | None = None
        self.is_pushed = False

    def push(self, client: Any, reply: Message, context: Context) -> None:
        """Push the reply, or an error if it cannot be written as bytes."""
        try:
            self._push(client, reply, context)
        except import_module("httpx").HTTPError:  # the SuperNode is not there
            raise
        except Exception as error:
            words = f"the reply cannot be sent: {described(error)}"
            failure = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, words)
            self._push(client, Message(failure, reply_to=cast(Message, self.request)), context)
        self.is_pushed = True

    def finish(self, **kwargs: Any) -> None:
        """Say that the task is finished, if it has been answered."""
        if self.is_pushed:
            self._finish(**kwargs)


def _loader_of_contained(find_loader: Callable[..., Any]) -> Callable[..., Any]:
    """Return Flower's way to find what loads an app, for apps whose every failure is a reply.

    Flower answers for an ``Exception``. Without an answer to anything else the SuperNode waits for
    a minute until it says that the ClientApp has crashed.
    """

    def find(**kwargs: Any) -> Any:
        load = find_loader(**kwargs)

        def load_contained(*names: Any) -> Callable[..., Message]:
            app = load(*names)

            def answer(message: Message, context: Context) -> Message:
                try:
                    return contained_reply(app, message, context)
                except ClientCodeError as error:
                    raise _safe_to_log(error) from None

            return answer

        return load_contained

    return find


def _safe_to_log(error: ClientCodeError) -> ClientCodeError:
    """Return the error with a traceback that no text of the client's is in but cut and printable.

    Flower logs it with all that has caused it, whose text may be long and move the cursor.
    """
    safe = ClientCodeError(str(error))
    if error.__cause__ is not None:
        safe.add_note(safe_traceback(error.__cause__))
    return safe


def import_client_runtime() -> None:
    """Import what every task uses; most of httpx is imported by its first client."""
    import_module(_CLIENT_APP)
    import_module("httpx").Client().close()


def load_installed_app(bundle: AppBundle) -> ClientApp:
    """Import an app that a task has installed, as Flower would for the next one."""
    load = import_module("flwr.clientapp.utils").get_load_client_app_fn(
        default_app_ref="", app_path=None, multi_app=True
    )
    return cast(ClientApp, load(bundle.fab_id, bundle.fab_version, bundle.fab_hash))
