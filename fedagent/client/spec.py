"""What a client process needs, and what it makes of that once for all messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from flwr.app import Context, Message, UserConfig, UserConfigValue
from flwr.clientapp.typing import Mod
from torch import nn

from fedagent.client.device import resolve_device
from fedagent.client.private import recall
from fedagent.client.request import model_in
from fedagent.client.trainer import LocalTraining
from fedagent.client.vectorised import VectorisedTrainer
from fedagent.errors import check_types
from fedagent.tasks.task import Task


@dataclass(frozen=True)
class ClientSpec:
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

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class LoadedClient:
    """A `ClientSpec` whose device is resolved and whose module is built."""

    task: Task
    training: LocalTraining
    device: torch.device
    model: nn.Module
    mods: Sequence[Mod]
    vectorised: VectorisedTrainer
    is_all_shared: bool
    """Whether all of the model travels, see `Task.split_state`."""

    @classmethod
    def of(cls, client: ClientSpec) -> "LoadedClient":
        """Resolve the device and build the module on it."""
        device = resolve_device(client.device)
        model = client.task.build_model().to(device)
        # A process's first Adam imports PyTorch's compiler, 2 s of it: here, not in the first
        # dispatch, and inherited by what is forked afterwards.
        client.training.build_optimizer(model.parameters())
        vectorised = VectorisedTrainer(client.task, model, device)
        is_all_shared = not client.task.split_state(model.state_dict())[1]
        return cls(
            client.task, client.training, device, model, client.mods, vectorised, is_all_shared
        )

    def load(self, message: Message, context: Context) -> nn.Module:
        """Copy the dispatched arrays into the module: training must never change a base version.

        The private part comes from the node itself, whatever was dispatched; what is at rest
        (`Task.shared`) stays as it was built.
        """
        _, arrays = model_in(message)
        shared, _ = self.task.split_state(arrays.to_torch_state_dict())
        _, others = self.task.split_state(self.model.state_dict())
        self.model.load_state_dict(others | shared | recall(self.task, context))
        return self.model


# At module level: Ray pickles ClientApps, and a cache cannot be pickled.
@lru_cache(maxsize=2)  # a long-lived process may see another run, hardly more at a time
def loaded_client(
    build: Callable[[UserConfig], ClientSpec], run_config: tuple[tuple[str, UserConfigValue], ...]
) -> LoadedClient:
    """Build a run's client; the same one for every message of the run, whose config is sorted."""
    # Building must not touch the global random state: the first message of a process would
    # train on other batches than the same message elsewhere, and the number of workers show.
    with torch.random.fork_rng(devices=[]):  # everything is built on the CPU
        return LoadedClient.of(build(dict(run_config)))
