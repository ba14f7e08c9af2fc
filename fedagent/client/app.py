"""A ClientApp for any `Task`, in Flower's own message conventions.

In:   ``arrays``, and ``config`` with, where the server decides, ``local-steps`` (B_k),
      ``learning-rate`` (M_k) and ``fedagent-token``.
Out:  ``arrays`` (after training), ``metrics`` with ``num-examples``, and ``config`` with the
      token, so that the proxy can tell an answer to this dispatch from any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import cast

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
    UserConfigValue,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from torch import nn

from fedagent import keys
from fedagent.client.device import resolve_device
from fedagent.client.trainer import LocalTraining, train
from fedagent.errors import ConfigurationError
from fedagent.records import records_of
from fedagent.task import Task


@dataclass(frozen=True)
class Client:
    """What a client process needs, whichever node it works for.

    Parameters
    ----------
    task : the application.
    training : how a node trains unless a dispatch says otherwise.
    device : see `resolve_device`.
    mods : Flower mods that this run needs; see `fedagent.client.mods`.
    """

    task: Task
    training: LocalTraining = field(default_factory=LocalTraining)
    device: str = "auto"
    mods: Sequence[Mod] = ()


def build_client_app(build: Callable[[UserConfig], Client], mods: Sequence[Mod] = ()) -> ClientApp:
    """Return a ClientApp that trains, evaluates and answers queries.

    Parameters
    ----------
    build : the run config to a `Client`. Called once per process and run config, because a
        process works for many nodes, one message at a time; what belongs to a node comes with
        each message.
    mods : Flower mods, applied to every message of every run; a `Client` may bring its own.
    """

    def for_run(context: Context) -> "_Ready":
        return _ready(build, tuple(sorted(context.run_config.items())))

    def mods_of_the_run(message: Message, context: Context, work: ClientAppCallable) -> Message:
        for mod in reversed(for_run(context).mods):
            work = _within(mod, work)
        return work(message, context)

    app = ClientApp(mods=[*mods, mods_of_the_run])

    @app.train()
    def train_on_node(message: Message, context: Context) -> Message:
        client, partition_id = for_run(context), _partition_id(context)
        training = _overridden(client.training, _config(message))
        model = client.load(message)
        batches = client.task.batches(partition_id, training.batch_size)
        metrics = train(client.task, model, batches, training, client.device)
        num_examples = client.task.num_examples(partition_id)
        return _reply(message, metrics | {"num-examples": num_examples}, model)

    @app.evaluate()
    def evaluate_on_node(message: Message, context: Context) -> Message:
        client, partition_id = for_run(context), _partition_id(context)
        model = client.load(message)
        return _reply(message, client.task.evaluate(model, client.device, partition_id))

    @app.query()
    def describe_node(message: Message, context: Context) -> Message:
        client, partition_id = for_run(context), _partition_id(context)
        return _reply(
            message,
            {
                "partition-id": partition_id,
                "num-examples": client.task.num_examples(partition_id),
                "has-accelerator": int(client.device.type != "cpu"),
            },
        )

    return app


@dataclass(frozen=True)
class _Ready:
    """A `Client` whose device is resolved and whose module is built."""

    task: Task
    training: LocalTraining
    device: torch.device
    model: nn.Module
    mods: Sequence[Mod]

    @classmethod
    def of(cls, client: Client) -> "_Ready":
        """Resolve the device and build the module on it."""
        device = resolve_device(client.device)
        model = client.task.build_model().to(device)
        # A process's first optimizer imports for a second or more: here, not in the first
        # dispatch, and inherited by what is forked afterwards.
        client.training.build_optimizer(model.parameters())
        return cls(client.task, client.training, device, model, client.mods)

    def load(self, message: Message) -> nn.Module:
        """Copy the dispatched arrays into the module: training must never change a base version."""
        arrays = records_of(message.content, ArrayRecord)["arrays"]
        self.model.load_state_dict(arrays.to_torch_state_dict())
        return self.model


# At module level, not in the closure: Ray pickles ClientApps, and a cache cannot be pickled.
@lru_cache(maxsize=2)  # a long-lived process may see another run, hardly more at a time
def _ready(
    build: Callable[[UserConfig], Client], run_config: tuple[tuple[str, UserConfigValue], ...]
) -> _Ready:
    # Building must not touch the global random state: the first message of a process would
    # train on other batches than the same message elsewhere, and the number of workers show.
    with torch.random.fork_rng(devices=[]):  # everything is built on the CPU
        return _Ready.of(build(dict(run_config)))


def _within(mod: Mod, work: ClientAppCallable) -> ClientAppCallable:
    """Return `work` with `mod` around it."""
    return lambda message, context: mod(message, context, work)


def _partition_id(context: Context) -> int:
    """Return which partition this node holds."""
    if "partition-id" not in context.node_config:
        raise ConfigurationError(
            f"Node {context.node_id} does not know which data it holds: its node config has no "
            "'partition-id'. Start it with: "
            'flower-supernode --node-config "partition-id=0 num-partitions=2"'
        )
    return int(context.node_config["partition-id"])


def _config(message: Message) -> ConfigRecord:
    """Return the message's config; messages without one have an empty one."""
    return records_of(message.content, ConfigRecord).get("config", ConfigRecord())


def _overridden(training: LocalTraining, config: ConfigRecord) -> LocalTraining:
    """Return `training` with the B_k and M_k that the dispatch asks for, if it does."""
    if keys.LOCAL_STEPS in config:
        training = replace(training, local_steps=int(cast(int, config[keys.LOCAL_STEPS])))
    if keys.LEARNING_RATE in config:
        training = replace(training, learning_rate=float(cast(float, config[keys.LEARNING_RATE])))
    return training


def _reply(message: Message, metrics: dict[str, float], model: nn.Module | None = None) -> Message:
    """Answer `message`; its token, if it has one, goes back with it."""
    content = RecordDict({"metrics": MetricRecord(dict(metrics))})
    if model is not None:
        content["arrays"] = ArrayRecord(model.state_dict())
    if keys.TOKEN in _config(message):
        content["config"] = ConfigRecord({keys.TOKEN: _config(message)[keys.TOKEN]})
    return Message(content, reply_to=message)
