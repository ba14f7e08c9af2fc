"""A ClientApp for any `Task`, in Flower's own message conventions.

In:   ``arrays``, and ``config`` with, where the server decides, ``local-steps`` (B_k),
      ``learning-rate`` (M_k), ``batch-size`` and ``fedagent-token``.
Out:  ``arrays`` (after training), ``metrics`` with ``num-examples``, and ``config`` with the
      token, so that the proxy can tell an answer to this dispatch from any other.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
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
from fedagent.client.device import resolve_device, tensors_of
from fedagent.client.private import fit_private, keep, recall, train_part
from fedagent.client.together import Part, Together
from fedagent.client.trainer import LocalTraining
from fedagent.errors import ConfigurationError
from fedagent.records import records_of, to_record
from fedagent.task import Task
from fedagent.update import Kind

_MAX_BATCHES_BYTES = 256 << 20  # of the batches of clients that train together


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


def build_client_app(build: Callable[[UserConfig], Client], mods: Sequence[Mod] = ()) -> "TaskApp":
    """Return a ClientApp that trains, evaluates and answers queries.

    Parameters
    ----------
    build : the run config to a `Client`. Called once per process and run config, because a
        process works for many nodes, one message at a time; what belongs to a node comes with
        each message.
    mods : Flower mods, applied to every message of every run; a `Client` may bring its own.
    """
    return TaskApp(build, mods)


class TaskApp(ClientApp):
    """A ClientApp for any `Task`; see `build_client_app`."""

    def __init__(self, build: Callable[[UserConfig], Client], mods: Sequence[Mod]) -> None:
        super().__init__(mods=[*mods, self._mods_of_the_run])
        self._build, self._has_mods = build, bool(mods)
        self.train()(self._train_on_node)
        self.evaluate()(self._evaluate_on_node)
        self.query()(self._describe_node)

    def warm_up(self, context: Context) -> None:
        """Build the task and read the node's data before a message needs them.

        A process that is copied for every message (``fedagent node``) does it once for all.
        """
        client, partition_id = self._for_run(context), _partition_id(context)
        next(client.task.batches(partition_id, client.training.batch_size))

    def _for_run(self, context: Context) -> "_Ready":
        return _ready(self._build, tuple(sorted(context.run_config.items())))

    def _mods_of_the_run(
        self, message: Message, context: Context, work: ClientAppCallable
    ) -> Message:
        for mod in reversed(self._for_run(context).mods):
            work = _within(mod, work)
        return work(message, context)

    def _train_on_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), _partition_id(context)
        training = _overridden(client.training, _config(message))
        model = client.load(message, context)
        batches = client.task.batches(partition_id, training.batch_size)
        fit_private(client.task, model, batches, training, client.device)
        metrics = train_part(client.task, model, batches, training, client.device)
        num_examples = client.task.num_examples(partition_id)
        keep(client.task, context, model)
        arrays = ArrayRecord(client.task.split_state(model.state_dict())[0])
        return _reply(message, metrics | {"num-examples": num_examples}, arrays)

    def _evaluate_on_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), _partition_id(context)
        model = client.load(message, context)
        batches = client.task.batches(partition_id, client.training.batch_size)
        fit_private(client.task, model, batches, client.training, client.device)
        return _reply(message, client.task.evaluate(model, client.device, partition_id))

    def _describe_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), _partition_id(context)
        return _reply(
            message,
            {
                "partition-id": partition_id,
                "num-examples": client.task.num_examples(partition_id),
                "has-accelerator": int(client.device.type != "cpu"),
            },
        )

    def train_together(
        self, requests: Sequence[tuple[Message, Context]], begin: Callable[[int], None]
    ) -> dict[int, Message]:
        """Do the training requests that can share a batch; return their replies by index.

        Whatever is left out has to be done alone: what is no training, or in mixed precision; a run
        with mods, which see one message at a time; a task with a private part; a client whose
        batches have a shape of their own, or fail to be drawn; and what would make all batches
        hold more than 256 MB.

        Parameters
        ----------
        requests : what the app is called with; messages are not changed.
        begin : called with a request's index before its batches are drawn, to seed generators.

        Raises
        ------
        RuntimeError, NotImplementedError
            If the task's loss cannot be computed for many models at once.
        """
        groups: dict[Hashable, dict[int, _Drawn]] = defaultdict(dict)
        starts: dict[Hashable, Mapping[str, torch.Tensor]] = {}
        room = _MAX_BATCHES_BYTES
        for index, (message, context) in enumerate(requests):
            if message.metadata.message_type != Kind.TRAIN or self._has_mods:
                continue
            begin(index)
            drawn = self._draw(message, context, starts, room)
            if drawn is not None:
                room -= drawn.num_bytes
                groups[drawn.form][index] = drawn
        replies = {}
        for group in groups.values():
            if len(group) > 1:
                client, training = next((d.client, d.training) for d in group.values())
                parts = [drawn.part for drawn in group.values()]
                results = client.together.train(parts, training)
                for (index, drawn), (state, metrics) in zip(group.items(), results, strict=True):
                    metrics["num-examples"] = drawn.num_examples
                    arrays = to_record({key: t.cpu().numpy() for key, t in state.items()})
                    replies[index] = _reply(requests[index][0], metrics, arrays)
        return replies

    def _draw(
        self,
        message: Message,
        context: Context,
        starts: dict[Hashable, Mapping[str, torch.Tensor]],
        room: int,
    ) -> "_Drawn | None":
        try:
            client, partition_id = self._for_run(context), _partition_id(context)
            training = _overridden(client.training, _config(message))
            num_examples = client.task.num_examples(partition_id)
            endless = client.task.batches(partition_id, training.batch_size)
            batches = list(islice(endless, 1))
            num_bytes = training.local_steps * sum(t.nbytes for t in tensors_of(batches))
            # What train_together does not do.
            is_special = client.task.private or training.precision != "float32"
            if client.mods or num_bytes > room or is_special:
                return None
            batches += islice(endless, training.local_steps - 1)
            arrays = records_of(message.content, ArrayRecord)["arrays"]
            version = tuple(id(array.data) for array in arrays.values())
            if version not in starts:
                starts[version] = arrays.to_torch_state_dict()
        except Exception:  # whoever does this request alone finds the same, and answers for it
            return None
        shapes = {tuple((t.shape, t.dtype) for t in tensors_of(batch)) for batch in batches}
        if len(batches) < training.local_steps or len(shapes) > 1:
            return None
        form = id(client), replace(training, local_steps=1), shapes.pop()
        part = Part(starts[version], batches)
        return _Drawn(client, training, part, num_examples, num_bytes, form)


@dataclass(frozen=True)
class _Ready:
    """A `Client` whose device is resolved and whose module is built."""

    task: Task
    training: LocalTraining
    device: torch.device
    model: nn.Module
    mods: Sequence[Mod]
    together: Together

    @classmethod
    def of(cls, client: Client) -> "_Ready":
        """Resolve the device and build the module on it."""
        device = resolve_device(client.device)
        model = client.task.build_model().to(device)
        # A process's first optimizer imports for a second or more: here, not in the first
        # dispatch, and inherited by what is forked afterwards.
        client.training.build_optimizer(model.parameters())
        together = Together(client.task, model, device)
        return cls(client.task, client.training, device, model, client.mods, together)

    def load(self, message: Message, context: Context) -> nn.Module:
        """Copy the dispatched arrays into the module: training must never change a base version.

        The private part comes from the node itself, whatever was dispatched.
        """
        arrays = records_of(message.content, ArrayRecord)["arrays"]
        shared, _ = self.task.split_state(arrays.to_torch_state_dict())
        self.model.load_state_dict(shared | recall(self.task, context))
        return self.model


@dataclass(frozen=True)
class _Drawn:
    """A training request with its data; those of the same `form` can share a batch."""

    client: _Ready
    training: LocalTraining
    part: Part
    num_examples: int
    num_bytes: int
    form: Hashable


# At module level: Ray pickles ClientApps, and a cache cannot be pickled.
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
    """Return `training` with what the dispatch asks for, if it does."""
    if keys.LOCAL_STEPS in config:
        training = replace(training, local_steps=int(cast(int, config[keys.LOCAL_STEPS])))
    if keys.LEARNING_RATE in config:
        training = replace(training, learning_rate=float(cast(float, config[keys.LEARNING_RATE])))
    if keys.BATCH_SIZE in config:
        training = replace(training, batch_size=int(cast(int, config[keys.BATCH_SIZE])))
    return training


def _reply(
    message: Message, metrics: dict[str, float], arrays: ArrayRecord | None = None
) -> Message:
    """Answer `message`; its token, if it has one, goes back with it."""
    content = RecordDict({"metrics": MetricRecord(dict(metrics))})
    if arrays is not None:
        content["arrays"] = arrays
    if keys.TOKEN in _config(message):
        content["config"] = ConfigRecord({keys.TOKEN: _config(message)[keys.TOKEN]})
    return Message(content, reply_to=message)
