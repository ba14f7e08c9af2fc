"""The contract of a server rule."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from fedagent.model import FlatModel
from fedagent.update import Update


class Rule(ABC):
    """What an update does to the model. One paper per file, formula beside code.

    A rule mutates ``model.vector`` in place and never touches ``model.version``: the proxy counts
    versions. It holds no clock, knows no Flower, and everything it remembers is in `state_dict`.
    """

    refusal: ClassVar[str] = "too-stale"
    """The word under which refused updates are counted; "too-stale" costs their node no rest."""
    refusal_advice: ClassVar[str] = ""
    """What to do about refusals, for the log."""

    @abstractmethod
    def receive(self, model: FlatModel, update: Update) -> bool:
        """Take one update in; return True when `model` now is a new version to publish."""

    def accepts(self, update: Update) -> bool:
        """Return False to refuse an update, before it is received; `refusal` says why."""
        return True

    def model_for(self, node_id: int) -> torch.Tensor | None:
        """Return the (P,) model that `node_id` is to train or evaluate; None: the published one.

        Only rules that keep several models override it. The proxy copies what it gets.
        """
        return None

    def tell(self, node_id: int) -> Mapping[str, int]:
        """Return what `node_id` must be told with its next job; it becomes part of its config."""
        return {}

    def metrics(self) -> Mapping[str, float]:
        """Return numbers about the rule's state, recorded with every version that is evaluated."""
        return {}

    @property
    def pending(self) -> int:
        """Updates received that are not yet part of a published version."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule remembers: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {set(state)}.")
