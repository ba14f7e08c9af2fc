"""A ClientApp for any `Task`, in Flower's own message conventions.

In:   ``arrays``, and ``config`` with, where the server decides, ``local-steps`` (B_k),
      ``learning-rate`` (M_k), ``batch-size`` and ``fedagent-token``.
Out:  ``arrays`` (after training), ``metrics`` with ``num-examples``, and ``config`` with the
      token, so that the proxy can tell an answer to this dispatch from any other.
"""

from collections.abc import Callable, Sequence

from flwr.app import ArrayRecord, Context, Message, UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedagent.client.mods.codec import codec_mod
from fedagent.client.mods.secure import secure_mod
from fedagent.client.private import fit_private, keep, train_part
from fedagent.client.request import asked, partition_of, reply_to
from fedagent.client.shared_batches import train_group
from fedagent.client.spec import ClientSpec, LoadedClient, loaded_client


def build_client_app(
    build: Callable[[UserConfig], ClientSpec], mods: Sequence[Mod] = ()
) -> "TaskApp":
    """Return a ClientApp that trains, evaluates and answers queries.

    Parameters
    ----------
    build : the run config to a `ClientSpec`. Called once per process and run config, because a
        process works for many nodes, one message at a time; what belongs to a node comes with
        each message.
    mods : Flower mods, applied to every message of every run; a `ClientSpec` may bring its own.
    """
    return TaskApp(build, mods)


class TaskApp(ClientApp):
    """A ClientApp for any `Task`; see `build_client_app`."""

    def __init__(self, build: Callable[[UserConfig], ClientSpec], mods: Sequence[Mod]) -> None:
        super().__init__(mods=[codec_mod, secure_mod, *mods, self._mods_of_the_run])
        self._build, self._has_mods = build, bool(mods)
        self.train()(self._train_on_node)
        self.evaluate()(self._evaluate_on_node)
        self.query()(self._describe_node)

    def warm_up(self, context: Context) -> None:
        """Build the task and read the node's data before a message needs them.

        A process that is copied for every message (``fedagent node``) does it once for all.
        """
        client, partition_id = self._for_run(context), partition_of(context)
        next(client.task.batches(partition_id, client.training.batch_size))

    def train_together(
        self, requests: Sequence[tuple[Message, Context]], on_start: Callable[[int], None]
    ) -> dict[int, Message]:
        """Do the training requests that can share a batch; see `train_group`."""
        return {} if self._has_mods else train_group(requests, on_start, self._for_run)

    def _for_run(self, context: Context) -> LoadedClient:
        return loaded_client(self._build, tuple(sorted(context.run_config.items())))

    def _mods_of_the_run(
        self, message: Message, context: Context, work: ClientAppCallable
    ) -> Message:
        for mod in reversed(self._for_run(context).mods):
            work = _within(mod, work)
        return work(message, context)

    def _train_on_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), partition_of(context)
        training = asked(client.training, message)
        model = client.load(message, context)
        batches = client.task.batches(partition_id, training.batch_size)
        fit_private(client.task, model, batches, training, client.device)
        metrics = train_part(client.task, model, batches, training, client.device)
        num_examples = client.task.num_examples(partition_id)
        keep(client.task, context, model)
        arrays = ArrayRecord(client.task.split_state(model.state_dict())[0])
        return reply_to(message, metrics | {"num-examples": num_examples}, arrays)

    def _evaluate_on_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), partition_of(context)
        model = client.load(message, context)
        batches = client.task.batches(partition_id, client.training.batch_size)
        fit_private(client.task, model, batches, client.training, client.device)
        return reply_to(message, client.task.evaluate(model, client.device, partition_id))

    def _describe_node(self, message: Message, context: Context) -> Message:
        client, partition_id = self._for_run(context), partition_of(context)
        return reply_to(
            message,
            {
                "partition-id": partition_id,
                "num-examples": client.task.num_examples(partition_id),
                "has-accelerator": int(client.device.type != "cpu"),
            },
        )


def _within(mod: Mod, work: ClientAppCallable) -> ClientAppCallable:
    """Return `work` with `mod` around it."""
    return lambda message, context: mod(message, context, work)
