"""The contract of a server rule."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Set
from typing import Any

import torch

from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel
from fedagent.rules.combining import Combining
from fedagent.stopping import RunEnd
from fedagent.update import Outcome, Rejection, Update


class Rule(ABC):
    """What an update does to the model. One paper per file, formula beside code.

    A rule mutates ``model.vector`` in place and never touches ``model.version``: the proxy counts
    versions. It holds no clock, knows no Flower, and everything it remembers is in `state_dict`.
    Times it is told are seconds since the run began.
    """

    def on_start(self, model: FlatModel) -> None:
        """Look at the model before the first dispatch, or before the first of a resumed run."""

    def register_node(self, node_id: int, attributes: Mapping[str, float]) -> None:
        """Learn a node's attributes, before each of its jobs; see `fedagent.nodes.geography`."""

    def begin_round(self, num_updates: int) -> None:
        """Learn, when a round begins, how many updates it has: as many as a cohort."""

    @abstractmethod
    def receive(self, model: FlatModel, update: Update) -> bool:
        """Take one update in; return True when `model` now is a new version to publish."""

    def rejection(self, update: Update) -> Rejection | None:
        """Return why an update is refused, before it is received; None takes it in."""
        return None

    def discount(self, staleness: int) -> float:
        """Return s(tau), what an update so many versions late weighs besides its other weights.

        If it is 0 the update is received and counts nothing; the run names nodes that only send
        such. 1 for rules that do not look at it.
        """
        return 1.0

    def influence(self, update: Update) -> float:
        """Return the weight that an update has beside others; what nodes are compared by.

        Asked of what is received; it must change nothing. `discount` of its staleness, unless the
        rule weighs by more than that.
        """
        return self.discount(update.staleness)

    def combine_with(self, combining: Combining) -> None:
        """Put a buffer's updates together in another way than by their mean, from now on.

        Raises
        ------
        ConfigurationError
            If the rule has no buffer, or goes by more than it.
        """
        raise ConfigurationError(
            f"{type(self).__name__} does not go by a buffer of updates alone, so "
            f"{type(combining).__name__} cannot protect it: take FedBuff, FedNova, FADAS, PORT, "
            "FedStaleWeight or Rennala, or filters that look at single updates."
        )

    def weigh_equally(self) -> None:
        """Let all updates of a buffer weigh the same from now on, whatever is in them.

        Then one update that is their mean, as late as the latest, moves the model as they would.

        Raises
        ------
        ConfigurationError
            If the rule goes by more than that.
        """
        raise ConfigurationError(
            f"{type(self).__name__} goes by single updates, or by what each of them weighs, and a "
            "secure sum shows it neither: take FedBuff or FADAS."
        )

    def model_for(self, node_id: int) -> torch.Tensor | None:
        """Return the (P,) model that `node_id` is to train or evaluate; None: the published one.

        Only rules that keep several models override it. The proxy copies what it gets.
        """
        return None

    def version_for(self, node_id: int) -> int | None:
        """Return the number of the version that `model_for` returns; None: the global count.

        A rule whose models have versions of their own overrides it: staleness is then counted in
        those.
        """
        return None

    def next_due_s(self) -> float:
        """Return when `advance` has something to do, if no update comes before; or infinity."""
        return math.inf

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Do the one thing that is due longest; return True when `model` is a new version.

        Called while `next_due_s` is not after `now_s`.
        """
        return False

    def flush(self, model: FlatModel) -> bool:
        """Apply what was received and waits; return True when `model` now is a new version.

        `Periodic` asks for it at the end of a period. A rule that keeps nothing back, or that must
        wait for more, leaves the model as it is.
        """
        return False

    @property
    def allows_prefetch(self) -> bool:
        """Whether a node may be sent a job before its last update was applied."""
        return True

    @property
    def allows_clock(self) -> bool:
        """Whether versions may come out by the clock; see `Periodic`.

        Not where what moves the model must be published at once.
        """
        return True

    @property
    def is_opaque(self) -> bool:
        """Whether only the rule understands the model: see `OpaqueModel`."""
        return False

    @property
    def allows_filters(self) -> bool:
        """Whether what becomes of an update may depend on those of other nodes.

        Not where a promise about every single node is made.
        """
        return True

    @property
    def has_buffer(self) -> bool:
        """Whether K updates make a version, none of which counts before."""
        return False

    @property
    def is_one_per_node(self) -> bool:
        """Whether no version holds more than one update of a node; it then needs K nodes."""
        return False

    @property
    def needs_clock(self) -> bool:
        """Whether no version comes out without one: a buffer that is never full by itself."""
        return False

    @property
    def needs_groups(self) -> bool:
        """Whether it aggregates by the groups that a scheduler forms; see `Update.group`."""
        return False

    @property
    def barred(self) -> Set[int]:
        """Nodes that are to get no job at the moment, however idle."""
        return frozenset()

    @property
    def end_when_all_are_barred(self) -> RunEnd:
        """How a run ends in which every node is `barred` and none is at work."""
        return RunEnd("stalled", f"{type(self).__name__} lets no node work")

    def job_config(self, node_id: int) -> Mapping[str, int]:
        """Return what `node_id` must be told with its next job; it becomes part of its config."""
        return {}

    def metrics(self) -> Mapping[str, float]:
        """Return numbers about the rule's state, recorded with every version that is evaluated."""
        return {}

    @property
    def updates_per_version(self) -> int | None:
        """K, if always so many updates make a version; None where that is decided otherwise."""
        return None

    @property
    def typical_staleness(self) -> float:
        """Median staleness, in versions, that updates may have: what concurrency="auto" aims at."""
        return 4.0

    @property
    def pending(self) -> int:
        """Updates received that are not yet part of a published version."""
        return 0

    @property
    def lost(self) -> Mapping[str, int]:
        """Updates received that no version will ever hold, by reason."""
        return {}

    def take_withdrawn(self) -> Mapping[int, float]:
        """Return, once and by node, the `influence` of what counts nothing after all."""
        return {}

    @property
    def bytes_between_regions(self) -> int:
        """Bytes that the rule's own parts have sent each other between regions."""
        return 0

    def memory(self) -> Mapping[str, Any]:
        """Return all that the rule goes by, for a look at it: of most rules their state."""
        return self.state_dict()

    def remember(self) -> Callable[[], None]:
        """Return a function that brings the rule back to where it is now, as often as called."""
        state = self.state_dict()
        return lambda: self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule remembers: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {set(state)}.")


def too_stale(update: Update) -> Rejection:
    """Return the rejection of an update that came too late; its node gets no rest for that."""
    detail = f"staleness {update.staleness}"
    return Rejection(Outcome.REJECTED, "too-stale", detail, blames_node=False)
