"""How a server trains on examples that it trusts: as its clients do, on batches of its own."""

from itertools import cycle, islice

import torch

from fedagent.arrays import NDArray
from fedagent.client.trainer import LocalTraining, train
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.tasks.task import Task


class TrustedTraining:
    """What training on trusted examples changes of a model; see `fedagent.admission.filters`.

    The examples are the first batches of ``task.public_batches``, the same ones for all of a run.
    A task that has public data of its own gives those; otherwise they are a sample of everybody's.

    Parameters
    ----------
    task : the application; all of its model must travel.
    training : how clients train, local steps and learning rate included.
    num_batches : batches that are trusted, >= 1.
    seed : which ones, and in which order they are trained on.
    """

    def __init__(
        self, task: Task, training: LocalTraining, num_batches: int = 8, seed: int = 0
    ) -> None:
        require(num_batches >= 1, f"TrustedTraining: num_batches={num_batches} must be at least 1.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._module = task.build_model()
            endless = task.public_batches(training.batch_size)
            self._batches = list(islice(endless, num_batches))
        state = self._module.state_dict()
        require(
            not task.split_state(state)[1],
            f"TrustedTraining: {type(task).__name__} keeps a part of its model on its nodes, so "
            "the server cannot train it; take a filter that needs no trusted examples.",
        )
        self._task, self._training, self._seed = task, training, seed

    def __call__(self, model: FlatModel) -> torch.Tensor:
        """Return the (P,) change; `model` and the global random state stay as they are."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            start = {name: torch.tensor(array) for name, array in model.arrays().items()}
            self._module.load_state_dict(start)
            train(
                self._task,
                self._module,
                cycle(self._batches),
                self._training,
                torch.device("cpu"),
            )
        trained: dict[str, NDArray] = {
            name: tensor.detach().numpy() for name, tensor in self._module.state_dict().items()
        }
        vector, _ = model.spec.flatten(trained)
        return vector.sub_(model.vector)
