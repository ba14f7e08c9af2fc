r"""Differential privacy of whole nodes, without rounds and true without them.

    on each arrival:   S <- S + s(tau_i) min(1, C / |Delta_i|) Delta_i
    on the K-th:       the inner rule receives one update, (S + N(0, z^2 C^2 I)) / K;   S <- 0

Whatever the inner rule makes of it is post-processing. What makes the sum's sensitivity C:

- a node is in a release once at most: it gets no work while its update waits for one, and a second
  update would be refused;
- s(tau) <= 1 depends on how late an update is, not on what is in it; nobody's examples weigh;
- the divisor is K, also where a release comes with fewer;
- what cannot be clipped, such as counters of batches, is not taken over at all.

Neighbours differ in one node, whose answers come all the same and add nothing to any sum (Kairouz
et al., arXiv 2103.00039, Definition 1.1): what it answers is protected, when it answers is not. The
server is trusted: it sees every update. Nodes, and whoever sees versions, are not. See
docs/privacy.md.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.privacy.accountant import Accountant
from fedagent.privacy.clipping import Clipping
from fedagent.privacy.noise import Noise
from fedagent.rules.base import Rule
from fedagent.rules.combining import Combining
from fedagent.rules.lengths import norm
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.rules.wrapper import RuleWrapper
from fedagent.stopping import RunEnd
from fedagent.update import Outcome, Rejection, Update

_SERVER = -1  # whose update the inner rule receives


class Private(RuleWrapper):
    """A rule that sees nothing but noisy means of clipped updates.

    Parameters
    ----------
    inner : what a noisy mean does to the model, as one update of weight 1 and staleness 0.
    buffer_size : K >= 1, updates per release. The noise of the mean is z C / K.
    clip_norm : C > 0, the largest norm of an update; the first one with `clip_quantile`.
    noise_multiplier : z > 0, standard deviation of the noise over C.
    delta : of the guarantee, in (0, 1); below one over the number of nodes.
    epsilon_budget : > 0; a node that has spent it gets no more work. The run ends when nobody may
        work. None for no limit.
    clip_quantile : in (0, 1), the share of updates that C shall leave whole; None for a fixed C.
    tree_releases : T >= 1; noise along trees of T releases, in each of which a node takes part
        once. None for fresh noise in every release.
    staleness : s(tau) <= 1.
    seed : of the noise. None draws one that nobody knows, as any real use must; a number is for
        simulations that shall be repeatable.

    Raises
    ------
    ConfigurationError
        If a number is out of its range, or the inner rule works with single nodes.
    DataUnavailableError
        If dp-accounting is not installed.
    """

    def __init__(
        self,
        inner: Rule,
        buffer_size: int = 10,
        clip_norm: float = 1.0,
        noise_multiplier: float = 1.0,
        delta: float = 1e-5,
        epsilon_budget: float | None = None,
        clip_quantile: float | None = None,
        tree_releases: int | None = None,
        staleness: Staleness = polynomial,
        seed: int | None = None,
    ) -> None:
        super().__init__(inner)
        _require_server_side(inner)
        require(buffer_size >= 1, f"Private: buffer_size={buffer_size} must be at least 1.")
        require(
            clip_quantile is None or tree_releases is None,
            "Private: clip_quantile and tree_releases do not go together: all draws of a tree are "
            "of one size. Set one of them to null.",
        )
        require(
            noise_multiplier > 0,
            f"Private: noise_multiplier={noise_multiplier} must be positive: without noise nothing "
            "is private.",
        )
        self.buffer_size, self.noise_multiplier = buffer_size, noise_multiplier
        self.staleness = validated(staleness)
        self.accountant = Accountant(delta, epsilon_budget)
        self.clipping = Clipping(clip_norm, clip_quantile)
        self._noise = Noise(seed, tree_releases)
        self._sum: torch.Tensor | None = None
        self._num_waiting = 0
        self._has_spent: set[int] = set()
        self._barred: set[int] = set()
        self.accountant.epsilon()  # a missing package shows now
        require(
            self.accountant.can_afford(_SERVER, self._cost(1.0)),
            f"Private: epsilon_budget={epsilon_budget} does not pay for one release: take a larger "
            f"noise_multiplier than {noise_multiplier}, see noise_multiplier_for().",
        )

    def on_start(self, model: FlatModel) -> None:
        """Refuse a model that noise would break."""
        statistics = [s.name for s in model.spec.arrays if s.is_averaged and s.is_statistic]
        require(
            not statistics,
            f"Private: {', '.join(statistics[:3])} are running statistics, and noise makes "
            "variances negative. Take a normalisation without them, such as GroupNorm.",
        )
        self._noise.begin()  # before the first checkpoint: what is replayed gets the same noise
        super().on_start(model)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Clip an update and add it to the sum; the K-th makes a release."""
        weight = self.staleness(update.staleness)
        if self._sum is None:
            self._sum = torch.zeros_like(update.delta)
        factor = weight * self.clipping.factor(norm(update.delta))
        self._sum.add_(update.delta, alpha=factor)
        self._num_waiting += 1
        self._barred.add(update.node_id)
        self.accountant.charge(update.node_id, self._cost(weight))
        if not self.accountant.can_afford(update.node_id, self._cost(1.0)):
            self._has_spent.add(update.node_id)
        return self._num_waiting >= self.buffer_size and self._release(model)

    def flush(self, model: FlatModel) -> bool:
        """Release what there is, with all of a release's noise, and let the inner rule follow."""
        has_moved = self._num_waiting > 0 and self._release(model)
        return self.inner.flush(model) or has_moved

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse a node's second update of a release, and what exceeds its budget."""
        if update.node_id in self._barred:
            return Rejection(
                Outcome.REJECTED,
                "privacy",
                "the node is in this release already, or has spent its budget",
                blames_node=False,
            )
        return None

    @property
    def barred(self) -> Set[int]:
        """Nodes whose update waits for its release, or its tree's end; those without a budget."""
        return self._barred

    @property
    def end_when_all_are_barred(self) -> RunEnd:
        """Completed, if budgets are the reason; stalled where there are too few nodes for one K."""
        waiting = len(self._barred) - len(self._has_spent)
        budget = self.accountant.epsilon_budget
        return RunEnd(
            "completed" if self._has_spent else "stalled",
            f"{len(self._has_spent)} nodes have spent epsilon_budget={budget}, {waiting} wait for "
            f"a release of {self.buffer_size} updates that nobody else may complete",
        )

    def discount(self, staleness: int) -> float:
        """Return s(tau)."""
        return self.staleness(staleness)

    def influence(self, update: Update) -> float:
        """Return s(tau), whatever the inner rule says of single updates, which it never sees."""
        return self.staleness(update.staleness)

    def metrics(self) -> Mapping[str, float]:
        """Return the largest epsilon of all nodes, C, and what the inner rule says."""
        own = {"epsilon": self.accountant.epsilon(), "clip-norm": self.clipping.norm}
        return {**self.inner.metrics(), **own}

    def combine_with(self, combining: Combining) -> None:
        """Refuse: the noise is that of a mean, and clipping bounds every node already."""
        Rule.combine_with(self, combining)

    def weigh_equally(self) -> None:
        """Refuse: single updates are clipped here."""
        Rule.weigh_equally(self)

    @property
    def allows_filters(self) -> bool:
        """No: a node's update would change what becomes of others', and the noise hides less."""
        return False

    @property
    def allows_prefetch(self) -> bool:
        """No: a node is in a release once."""
        return False

    @property
    def updates_per_version(self) -> int | None:
        """K times the releases that the inner rule needs, where it says."""
        per_version = self.inner.updates_per_version
        return None if per_version is None else self.buffer_size * per_version

    @property
    def pending(self) -> int:
        """Updates that wait for a release, and those of releases that the inner rule keeps."""
        return self._num_waiting + self.buffer_size * self.inner.pending

    def _cost(self, weight: float) -> float:
        """Return the mu^2 of a contribution of this weight, its bit included."""
        draws = self._noise.draws_per_contribution
        cost = draws * (weight / self.noise_multiplier) ** 2
        if self.clipping.quantile is not None:
            cost += (0.5 / self.clipping.bits_std(self.buffer_size)) ** 2
        return cost

    def _release(self, model: FlatModel) -> bool:
        """Add the noise, and let the inner rule have the mean."""
        assert self._sum is not None
        total, self._sum = self._sum, None
        self._noise.add_to(total, self.noise_multiplier * self.clipping.norm)
        if self.clipping.quantile is not None:
            bits = self._noise.number(self.clipping.bits_std(self.buffer_size))
            self.clipping.follow(self.buffer_size, bits)
        self._num_waiting = 0
        if self._noise.is_new:
            self._barred = set(self._has_spent)
        total.mul_(1.0 / self.buffer_size)
        largest = max(float(block.abs().max()) for (block,) in blocks(total))
        update = Update(_SERVER, total, model.vector.clone(), staleness=0, largest_change=largest)
        return self.inner.receive(model, update)

    def remember(self) -> Callable[[], None]:
        """Remember what waits and the inner rule, and not the books.

        Others have seen the releases since: what they cost stays paid, and no noise comes twice.
        """
        state, restore_inner = self.state_dict(), self.inner.remember()

        def restore() -> None:
            now = self.state_dict()
            kept = {name: now[name] for name in ("has_spent", "accountant", "noise")}
            self.load_state_dict({**state, **kept, "barred": {*state["barred"], *now["barred"]}})
            restore_inner()

        return restore

    def state_dict(self) -> dict[str, Any]:
        """Return what waits for a release, what nodes have paid, and where the noise is.

        Whoever reads it can take the noise off: it is as secret as the updates.
        """
        return {
            "inner": self.inner.state_dict(),
            "sum": None if self._sum is None else self._sum.clone(),
            "num_waiting": self._num_waiting,
            "barred": sorted(self._barred),
            "has_spent": sorted(self._has_spent),
            "accountant": self.accountant.state_dict(),
            "clipping": self.clipping.state_dict(),
            "noise": self._noise.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._sum = None if state["sum"] is None else state["sum"].clone()
        self._num_waiting = int(state["num_waiting"])
        self._barred, self._has_spent = set(state["barred"]), set(state["has_spent"])
        self.accountant.load_state_dict(state["accountant"])
        self.clipping.load_state_dict(state["clipping"])
        self._noise.load_state_dict(state["noise"])


def _require_server_side(inner: Rule) -> None:
    rule = inner
    while isinstance(rule, RuleWrapper):
        rule = rule.inner
    name = type(rule).__name__
    require(
        not rule.is_opaque and not rule.needs_groups and type(rule).model_for is Rule.model_for,
        f"Private: {name} works with the updates of single nodes, and gets nothing but means of "
        "many. Take a rule with one model, such as FedBuff(buffer_size=1).",
    )
