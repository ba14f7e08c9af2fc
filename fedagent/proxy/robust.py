"""What a run does against nodes that lie: one group of options, whatever the rule.

FedBuff(buffer_size=20, robust=Robust(Median(), filters=[NormBound()], max_influence=0.05))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedagent.admission.filters import Filter
from fedagent.admission.quarantine import Quarantine
from fedagent.errors import one_of, require
from fedagent.rules import Combining, OnePerNode, Rule
from fedagent.rules.one_per_node import PerNode
from fedagent.statistics import Statistics
from fedagent.update import Outcome, Rejection


@dataclass(frozen=True)
class Robust:
    """How much any node may do to the model. By default everything, as everywhere else.

    Parameters
    ----------
    combining : what a buffer of updates is, instead of their mean; then no version holds more than
        one update of a node, and the examples that nodes claim do not count.
    per_node : "newest" or "mean", which of a node's updates that one is, "all" for no such limit;
        None for "newest" where there is `combining`. See `fedagent.rules.OnePerNode`.
    filters : what looks at every update before the rule, in this order; by any name, or none.
    max_influence : largest share, in (0, 1], of the weight of all updates applied that is of one
        node; None for any. A node that another update might take over that rests until others have
        brought more, and what it sends none the less is refused. Nobody at or below the mean of the
        connected ones does, without those that may not work, fail or bring nothing: so somebody is
        always heard.
    suspicion_limit, suspicion_decay : see `Quarantine`.

    Raises
    ------
    ConfigurationError
        If a value cannot work.
    """

    combining: Combining | None = None
    per_node: Literal["newest", "mean", "all"] | None = None
    filters: Sequence[Filter] | Mapping[str, Filter] = ()
    max_influence: float | None = None
    suspicion_limit: float = 2.0
    suspicion_decay: float = 0.9
    gate: Quarantine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.per_node is not None:
            one_of("Robust: per_node", self.per_node, (*get_args(PerNode), "all"))
        require(
            self.max_influence is None or 0 < self.max_influence <= 1,
            f"Robust: max_influence={self.max_influence} must lie in (0, 1], or be null.",
        )
        named = self.filters.values() if isinstance(self.filters, Mapping) else self.filters
        gate = Quarantine(tuple(named), self.suspicion_limit, self.suspicion_decay)
        object.__setattr__(self, "gate", gate)

    @property
    def kept_per_node(self) -> PerNode | None:
        """Which of a node's updates a version may hold; None for all."""
        if self.per_node == "all":
            return None
        return self.per_node or (None if self.combining is None else "newest")

    def around(self, rule: Rule) -> Rule:
        """Return the rule as these options want it.

        Raises
        ------
        ConfigurationError
            If it cannot be: the message says why.
        """
        if self.combining is not None:
            rule.combine_with(self.combining)
        require(
            not (self.gate.filters and rule.is_opaque),
            "Robust: only the strategy understands this model, so no filter can look at updates of "
            "it; leave the filters out.",
        )
        require(
            not self.gate.filters or rule.allows_filters,
            f"Robust: filters let nodes decide what becomes of each other's updates, and what "
            f"{type(rule).__name__} promises each of them would not hold; leave the filters out.",
        )
        if self.kept_per_node is None or rule.is_one_per_node:
            return rule
        return OnePerNode(rule, self.kept_per_node)

    def over_its_share(
        self, node_id: int, weight: float, statistics: Statistics, num_heard: Callable[[], int]
    ) -> Rejection | None:
        """Return why an update of so much weight is too much of one node, if it is.

        Parameters
        ----------
        weight : see `fedagent.rules.Rule.influence`.
        num_heard : how many nodes can be expected to bring something; asked only if that matters.
        """
        if self.max_influence is None:
            return None
        total, own = statistics.applied_weight, statistics.weights.get(node_id, 0.0)
        if own + weight <= self.max_influence * (total + weight):
            return None
        if own * num_heard() <= total:
            return None
        detail = (
            f"node {node_id} has {own / total:.1%} of all weight, max_influence="
            f"{self.max_influence:g}"
        )
        return Rejection(Outcome.REJECTED, "over-its-share", detail, blames_node=False)

    def state_dict(self) -> dict[str, Any]:
        """Return what the filters remember."""
        return self.gate.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.gate.load_state_dict(state)
