"""The applications' contract: everything else (training, evaluation, reporting) is written once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, TypeVar, final

import torch
from torch import nn

from fedagent.errors import require
from fedagent.stopping import Metric
from fedagent.tasks.evaluation import Metrics, evaluating, over_nodes
from fedagent.tasks.showcase import Showcase
from fedagent.tasks.splits import check_partition_id

T = TypeVar("T")

Batch = Any
"""What `Task.batches` yields and `Task.loss` takes; tensors, or tuples or dicts of them."""

Part = Literal["test", "validation"]


class Task(ABC):
    """One application: a model, each node's data, a loss and its metrics.

    A task is built once per process from the configuration, on the server and on every client.
    Building it reads nothing: data is loaded when it is first asked for, so that a client reads
    only what it needs.
    """

    metric: ClassVar[Metric] = Metric("accuracy")
    """The metric that targets, plateaus and reports follow."""

    baseline_name: ClassVar[str] = "untrained model"
    """What `baseline` measures, in a word or two that a table has room for."""

    private: ClassVar[Sequence[str]] = ()
    """Modules and tensors of the model that never leave a node: it keeps them in its Context."""

    shared: ClassVar[Sequence[str]] = ("*",)
    """Patterns of names of what is trained together and travels. What is neither shared nor private
    is at rest: `build_model` must give it the same values on the server and on every node, from a
    seed or a file that all have."""

    central: ClassVar[Mapping[str, Any]] = {}
    """Fields of `fedagent.client.LocalTraining` that suit pooled data better than the nodes' own;
    chosen on validation data."""

    num_partitions: int
    """Nodes that the data is dealt to, >= 1; their partition ids begin at 0."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return a freshly initialised model on the CPU (the global torch seed decides it)."""

    @abstractmethod
    def num_examples(self, partition_id: int) -> int:
        """Return how many training examples a node holds, > 0.

        Raises
        ------
        ConfigurationError
            If there is no such partition; see `fedagent.tasks.check_partition_id`.
        """

    @abstractmethod
    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Return an endless, shuffled iterator over one node's training batches.

        ``None`` asks for all training data pooled: references. Batches are
        on the CPU; order and augmentation come from the global torch seed.
        """

    def public_batches(self, batch_size: int) -> Iterator[Batch]:
        """Return what the server warms a model up with before the first dispatch.

        As `batches`. All training data pooled, which a simulation may do; a task that has public
        data beside its nodes' overrides it.
        """
        return self.batches(None, batch_size)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss of one batch as a scalar that can be differentiated.

        To train clients as one batch (`Runtime`, ``vectorise``) it is recorded: then it must depend
        on nothing but `model` and `batch`.
        """

    @abstractmethod
    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return metrics of `model`, under at least ``self.metric.name`` and ``num-examples``.

        Written by the task and called by `evaluate` alone, which sees to eval mode, gradients and
        the partition id. What trains something of its own to measure with asks for
        ``torch.enable_grad``.

        Parameters
        ----------
        model : network on `device`. The server knows nobody's private part: with ``None`` that of
            `model` means nothing.
        device : where the model computes.
        partition_id : node whose validation data is meant; ``None`` is the central test split.
        """

    @final
    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> Metrics:
        """Return what `measure` finds, in eval mode and without gradients; restore the mode.

        Raises
        ------
        ConfigurationError
            If there is no such partition, or `measure` forgot the metric or ``num-examples``.
        """
        if partition_id is not None:
            check_partition_id(partition_id, self.num_partitions)
        with evaluating(model):
            metrics = self.measure(model, device, partition_id)
        missing = [name for name in (self.metric.name, "num-examples") if name not in metrics]
        require(
            not missing,
            f"{type(self).__name__}.measure returned {', '.join(metrics)} without "
            f"{' and '.join(missing)}; add that, or let the task's `metric` name what it returns.",
        )
        return metrics

    def validate(self, model: nn.Module, device: torch.device) -> Metrics:
        """Return means over all nodes' validation data, by examples, and the worst node's metric.

        Settings are chosen by it, never by the test split. A task with a private part, which only
        its nodes know, overrides it.

        Raises
        ------
        ConfigurationError
            If the task has a private part, and does not.
        """
        require(
            not self.private,
            f"{type(self).__name__} keeps a part of its model on its nodes, and nobody else can "
            "say what they reach with it: let them evaluate themselves (fraction_evaluate), or "
            "give the task a `validate` of its own.",
        )
        nodes = range(self.num_partitions)
        return over_nodes([self.evaluate(model, device, node) for node in nodes], self.metric)

    def baseline(self) -> Metrics:
        """Return the number to beat: what something simple reaches on the test split.

        Under the names of `evaluate`, at least the metric's. By default an untrained model's, which
        is chance, or of a policy what random actions earn; a task that knows better overrides it: a
        forest, the last value, the most popular, every node alone. The global random state stays as
        it was. A run computes it once, before it begins, unless ``baseline=false``.
        """
        with torch.random.fork_rng(devices=[]):
            return self.evaluate(self.build_model(), torch.device("cpu"))

    def remarks(self) -> Sequence[str]:
        """Return what a run says once, before it begins: sentences on what of the data is left out.

        Nothing by default.
        """
        return ()

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what a trained model does on test data, to look at: pictures, samples, a curve.

        Called once, at the end of a run, by `shown`: in eval mode and without gradients. Nothing by
        default. The server knows nobody's private part, as in `measure`.
        """
        return Showcase()

    @final
    def shown(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what `showcase` makes, in eval mode and without gradients; restore the mode."""
        with evaluating(model):
            return self.showcase(model, device)

    def centralised(
        self,
        train: Callable[["Task", nn.Module], object],
        device: torch.device,
        part: Part = "test",
    ) -> Metrics:
        """Return what the same model reaches when it learns from everybody's data in one place.

        Parameters
        ----------
        train : trains a model on `device` in place, with ``task.batches(None, ...)``. Settings for
            it are ``task.central``; ``python -m clients.references`` does all of this.
        device : where that happens.
        part : "test", or "validation" to choose settings by.
        """
        model = self.build_model().to(device)
        train(self, model)
        return self.evaluate(model, device) if part == "test" else self.validate(model, device)

    def is_private(self, name: str) -> bool:
        """Return whether this tensor of the model never leaves a node."""
        return any(name == p or name.startswith(f"{p}.") for p in self.private)

    def split_state(self, state: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
        """Split a state dict of the model: what is shared and travels, and what is not."""
        shared: dict[str, T] = {}
        others: dict[str, T] = {}
        for name, value in state.items():
            travels = any(fnmatchcase(name, pattern) for pattern in self.shared)
            (shared if travels and not self.is_private(name) else others)[name] = value
        return shared, others
