"""Every use of Flower's private names: `PrivateUse` says what a row means."""

import inspect
from collections.abc import Iterator
from types import SimpleNamespace

from fedagent._flower.private_use import Holder, PrivateName, PrivateUse


def _parameters(function: str) -> Holder:
    """Return the holder of a function's parameters."""
    return lambda module: SimpleNamespace(**inspect.signature(getattr(module, function)).parameters)


def _names(module: str, *names: str, holder: Holder | None = None) -> Iterator[PrivateName]:
    for name in names:
        yield PrivateName(module, name, holder) if holder else PrivateName(module, name)


IDENTITY = PrivateUse(
    "the identity of a process",
    "Message() reads from it whom it speaks for, and nothing public sets it.",
    tuple(_names("flwr.supercore.task_identity", "TaskIdentity")),
)
MESSAGE_IDS = PrivateUse(
    "the ids of messages",
    "A grid gives a message its id, and nothing public sets it.",
    tuple(
        _names(
            "flwr.app",
            "_message_id",
            holder=lambda app: app.Metadata(0, "", 0, 0, "", "", 0.0, 0.0, "train"),
        )
    ),
)
RUNS = PrivateUse(
    "information about a run",
    "Grid.run returns an object that no public module defines.",
    tuple(_names("flwr.supercore.run", "Run.create_empty")),
    "a simulated grid's run has an id, but no other field of Flower's",
)
RECORDS = PrivateUse(
    "filling records quickly",
    "Public constructors check every entry anew, and build every array twice.",
    (
        *_names("flwr.app.message.typeddict", "TypedDict.__setitem__"),
        *_names(
            "flwr.app",
            "_data",
            "_check_key_fn",
            "_check_value_fn",
            holder=lambda app: app.ConfigRecord(),
        ),
        *_names("flwr.app", "Array.from_numpy_ndarray"),
        *_names(
            "flwr.app",
            "dtype",
            "shape",
            "stype",
            "data",
            holder=lambda app: SimpleNamespace(**vars(app.Array("bool", (), "", b""))),
        ),
    ),
    "records are filled the public way: small jobs of a simulation take longer, nothing else "
    "changes",
)
LEGACY_SERVER = PrivateUse(
    "legacy servers that do the same on every machine",
    "The pool that their clients work in, and the order of their results, depend on the machine.",
    tuple(_names("flwr.server.compat.app", "init_defaults")),
    "in a simulation of a ServerApp(server_fn=...), virtual time depends on the CPU cores, and the "
    "last bits of models vary from run to run",
)
RUN_CONFIG = PrivateUse(
    "run configurations of Flower Apps",
    "Nothing public reads --run-config as flwr run does.",
    tuple(_names("flwr.common.config", "flatten_dict", "parse_config_args")),
)
WARM_NODE = PrivateUse(
    "ClientApps that start warm",
    "Flower has one way to start a ClientApp, a new process per message, and none to choose "
    "another.",
    (
        *_names("flwr.supernode.start_client_internal", "_pull_and_store_message", "time"),
        *_names(
            "flwr.supernode.cli.flower_supernode",
            "_parse_args_run_supernode",
            "start_client_internal",
        ),
        *_names("flwr.supercore.superexec.run_superexec", "get_executor", "time"),
        *_names("flwr.supercore.superexec.executor", "LaunchResult.accepted", "SubprocessExecutor"),
        *_names(
            "flwr.supernode.nodestate.in_memory_nodestate",
            "lock_task_store",
            "lock_msg_store",
            "task_token_store",
            "task_store",
            "msg_store",
            "record_message_processing_start",
            holder=lambda module: module.InMemoryNodeState(None),
        ),
        *_names(
            "flwr.supernode.runtime.run_clientapp",
            "run_clientapp",
            "pull_task_input",
            "install_from_fab",
            "get_load_client_app_fn",
            "push_message",
            "push_task_output",
            "flwr_exit",
        ),
        *_names(
            "flwr.supernode.runtime.run_clientapp",
            "runtime_api_address",
            "token",
            "insecure",
            "certificates",
            "parent_pid",
            "runtime_dependency_install",
            holder=_parameters("run_clientapp"),
        ),
        *_names("flwr.supercore.tls", "validate_and_resolve_root_certificates"),
        *_names("flwr.supercore.exit", "flwr_exit", "ExitCode.TASK_PROC_EXCEPTION"),
        *_names("flwr.supercore.exit.exit_handler", "trigger_exit_handlers"),
        *_names("flwr.clientapp.utils", "get_load_client_app_fn"),
    ),
    "Flower's own executor starts them: every message pays for a new process that imports "
    "everything again",
)
RUN_USES = (IDENTITY, MESSAGE_IDS, RUNS, RECORDS, LEGACY_SERVER)
"""What runs use. Looking for these names imports nothing more."""
USES = (*RUN_USES, RUN_CONFIG, WARM_NODE)
