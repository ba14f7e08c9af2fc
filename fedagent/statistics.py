"""What a run has done so far, in numbers: the one place callbacks and stopping rules read from."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from numbers import Real
from typing import Any

from fedagent.formatting import printable
from fedagent.update import Dispatch, Kind, Outcome

KEPT_EVALUATIONS = 1_000
"""How many of the newest evaluations, or rounds, a run keeps in memory."""
KEPT_VALUES = 200_000
"""How many of their values at most: clients choose how many metrics there are."""
MOST_REASONS = 100
"""How many outcomes with their reasons are told apart; clients choose some, such as error codes."""
OTHER = "other"
ENOUGH_JOBS = 3
"""How many jobs a node has had, none of use, before it is named."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one model version.

    Attributes
    ----------
    version : the published version that was evaluated; 0 is the initial model.
    now_s : clock time at which that version was published, in seconds.
    num_updates : updates received when it was published.
    source : "server" (evaluate_fn), "clients" (federated evaluation) or "rule" (`Rule.metrics`).
    metrics : metric name -> value.
    server_round : rounds that were complete then; see `Statistics`.
    """

    version: int
    now_s: float
    num_updates: int
    source: str
    metrics: Mapping[str, Any]
    server_round: int = 0

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are one number each, under names that are safe to print."""
        return {
            printable(name): float(value)
            for name, value in self.metrics.items()
            if isinstance(value, Real)
        }


@dataclass
class Statistics:
    """Running totals of one run.

    Attributes
    ----------
    version : published versions so far.
    server_round : complete rounds so far: a round has as many updates as its cohort has nodes. The
        last one may have fewer, if another condition ends the run in it.
    num_updates : updates a rule has received (APPLIED train dispatches).
    now_s : seconds on the run's clock (virtual in simulation) since the run began.
    wall_s : real seconds since the run began.
    is_virtual : whether `now_s` is simulated time.
    cohort : updates of a round.
    concurrency : nodes that may train at once.
    at_work_max : most nodes at work at once when training was handed out; a node goes on working
        after its deadline, and counts until it is heard of.
    in_flight : train dispatches without an outcome yet.
    num_nodes, num_idle : nodes that are connected, and those of them that could work and have
        nothing to do; 0 under Flower's own strategies.
    outcomes : train dispatches that ended, by outcome and reason, such as
        ``{("applied", ""): 90, ("rejected", "non-finite"): 2}``; beyond `MOST_REASONS`, "other".
    evaluation_outcomes, unmasking_outcomes : the same for federated evaluation, and for answers
        that secure sums take.
    unsolicited : replies that settled no dispatch (unknown, second or late), by reason.
    bytes_down, bytes_up : serialised model bytes sent to and received from nodes.
    node_bytes_between_regions : the part of both that left its region; known in simulation.
    edge_bytes_between_regions : what a rule with a proxy per region sent between regions.
    busy_s : node seconds between dispatch and outcome, summed over train dispatches; of jobs that
        queued at a node, from when it was done with the one before.
    applied_s : node seconds behind the updates received.
    useful_s : the same, each times (1 + tau)^-1/2.
    buffered : received updates that are not part of a version yet.
    lost : received updates that no version will ever hold, by reason, such as
        ``{"strategy-raised": 10}``.
    weights : the weight of all updates received, by node; see `fedagent.rules.Rule.influence`.
    heaviest : the weight of a node's heaviest update received, by node.
    applied_weight : the sum of `weights`.
    fruitless : nodes none of whose jobs has changed the model, and how often those ended how; of
        large fleets the first thousand. `fruitless_nodes` are those that had their chance.
    delta_like : nodes whose first update looked like the change of a model and not like a model:
        its norm over that of the model that was dispatched.
    staleness_sum, staleness_max : over received updates, in versions.
    evaluations : the newest `KEPT_EVALUATIONS` with at most `KEPT_VALUES` values, in order of
        version within each source.
    num_evaluations : evaluations so far, those that are no longer kept included.
    updates_per_version : mean number of updates in a version so far; 0 before the first.
    """

    version: int = 0
    server_round: int = 0
    num_updates: int = 0
    now_s: float = 0.0
    wall_s: float = 0.0
    is_virtual: bool = False
    cohort: int = 0
    concurrency: int = 0
    at_work_max: int = 0
    in_flight: int = 0
    num_nodes: int = 0
    num_idle: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    evaluation_outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmasking_outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unsolicited: Counter[str] = field(default_factory=Counter)
    bytes_down: int = 0
    bytes_up: int = 0
    node_bytes_between_regions: int = 0
    edge_bytes_between_regions: int = 0
    busy_s: float = 0.0
    applied_s: float = 0.0
    useful_s: float = 0.0
    buffered: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    heaviest: dict[int, float] = field(default_factory=dict)
    applied_weight: float = 0.0
    fruitless: dict[int, Counter[str]] = field(default_factory=dict)
    delta_like: dict[int, float] = field(default_factory=dict)
    staleness_sum: int = 0
    staleness_max: int = 0
    evaluations: deque[Evaluation] = field(default_factory=deque)
    num_evaluations: int = 0
    updates_per_version: float = 0.0
    _num_values: int = field(default=0, repr=False)
    _slots_s: float = field(default=0.0, repr=False)  # until concurrency last changed
    _changed_s: float = field(default=0.0, repr=False)

    @property
    def num_dispatches(self) -> int:
        """Train dispatches so far: those that ended and those in flight."""
        return self.outcomes.total() + self.in_flight

    @property
    def bytes_between_regions(self) -> int:
        """Bytes that have left their region, of nodes and of edges."""
        return self.node_bytes_between_regions + self.edge_bytes_between_regions

    @property
    def staleness_mean(self) -> float:
        """Mean staleness of the updates received, in versions."""
        return self.staleness_sum / self.num_updates if self.num_updates else 0.0

    @property
    def utilisation(self) -> float:
        """Share of `slots_s` in which a node was at work, 0 to 1."""
        return min(1.0, self.busy_s / self.slots_s) if self.slots_s > 0 else 0.0

    @property
    def slots_s(self) -> float:
        """Seconds in which nodes might have been at work: concurrency x time, summed."""
        return self._slots_s + self.concurrency * (self.now_s - self._changed_s)

    @property
    def wasted_s(self) -> float:
        """Seconds of the slots' time that did not reach the model in full.

        Idle time, the time behind updates that were never applied (failed, rejected, expired), and
        the staleness discount of those that were. The discount is FedBuff's (1 + tau)^-1/2 whatever
        the rule's own is, so that schedulers and rules compare.
        """
        return max(0.0, self.slots_s - self.useful_s)

    def published(self, version: int) -> None:
        """Count a version that holds all updates received but the buffered ones."""
        self.version = version
        self.updates_per_version = (self.num_updates - self.buffered) / version

    def train_at_once(self, concurrency: int) -> None:
        """Let so many nodes train at once from now on."""
        if concurrency != self.concurrency:
            self._slots_s, self._changed_s = self.slots_s, self.now_s
            self.concurrency = concurrency

    def dispatched(self, kind: Kind, payload_bytes: int, is_remote: bool = False) -> None:
        """Count one message sent, `is_remote` if to a node in another region than the sender's."""
        self.bytes_down += payload_bytes
        self.node_bytes_between_regions += payload_bytes * is_remote
        self.in_flight += kind is Kind.TRAIN

    def settled(
        self,
        dispatch: Dispatch,
        outcome: Outcome,
        reason: str,
        payload_bytes: int,
        begun_s: float | None = None,
        is_remote: bool = False,
    ) -> None:
        """Count the end of one dispatch that its node could begin at `begun_s` (when sent)."""
        self.bytes_up += payload_bytes
        self.node_bytes_between_regions += payload_bytes * is_remote
        if dispatch.kind is Kind.UNMASK:
            _count(self.unmasking_outcomes, outcome, reason)
            return
        if dispatch.kind is Kind.EVALUATE:
            _count(self.evaluation_outcomes, outcome, reason)
            return
        _count(self.outcomes, outcome, reason)
        self.in_flight -= 1
        self.busy_s += self.now_s - (dispatch.sent_at_s if begun_s is None else begun_s)

    def weigh(self, node_id: int, weight: float) -> None:
        """Add to the weight of a node's updates, or take off it what counts nothing after all."""
        self.weights[node_id] = self.weights.get(node_id, 0.0) + weight
        self.heaviest[node_id] = max(self.heaviest.get(node_id, 0.0), weight)
        self.applied_weight += weight

    def influence(self, node_id: int) -> float:
        """Return a node's share of the weight of all updates, 0 to 1."""
        if self.applied_weight <= 0.0:
            return 0.0
        return self.weights.get(node_id, 0.0) / self.applied_weight

    def most_influential(self, number: int = 10) -> dict[int, float]:
        """Return the nodes with the largest `influence`, and how large that is, largest first."""
        largest = nlargest(number, self.weights.items(), key=lambda item: item[1])
        return {node_id: self.influence(node_id) for node_id, _ in largest}

    def received(self, staleness: int, duration_s: float) -> None:
        """Count one update that the rule received, `duration_s` after its dispatch."""
        self.num_updates += 1
        self.applied_s += duration_s
        self.useful_s += duration_s / math.sqrt(1 + staleness)
        self.staleness_sum += staleness
        self.staleness_max = max(self.staleness_max, staleness)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Keep one evaluation, and forget the oldest if there are too many."""
        kept = self.evaluations
        kept.append(evaluation)
        self.num_evaluations += 1
        self._num_values += num_values(evaluation.metrics)
        while len(kept) > KEPT_EVALUATIONS or (self._num_values > KEPT_VALUES and len(kept) > 1):
            self._num_values -= num_values(kept.popleft().metrics)

    def evaluations_since(self, num_seen: int) -> list[Evaluation]:
        """Return those after the first `num_seen`, as far as they are kept."""
        num_new = min(self.num_evaluations - num_seen, len(self.evaluations))
        return list(islice(reversed(self.evaluations), num_new))[::-1]

    def fruitless_nodes(self) -> dict[int, dict[str, int]]:
        """Nodes with `ENOUGH_JOBS` of which none changed the model, and how often those ended how.

        Such as ``{17: {"rejected(non-finite)": 5}}``.
        """
        return {
            node_id: dict(counts)
            for node_id, counts in self.fruitless.items()
            if counts.total() >= ENOUGH_JOBS
        }

    def by_outcome(self) -> dict[str, int]:
        """Train dispatches that ended, ``{"applied": 90, "rejected(non-finite)": 2}``."""
        return {
            f"{outcome}({reason})" if reason else str(outcome): count
            for (outcome, reason), count in sorted(self.outcomes.items())
        }


def num_values(metrics: Mapping[str, Any]) -> int:
    """Return how many values metrics have, list entries included."""
    return sum(len(v) if isinstance(v, list) else 1 for v in metrics.values())


def _count(outcomes: Counter[tuple[str, str]], outcome: str, reason: str) -> None:
    is_told_apart = (outcome, reason) in outcomes or len(outcomes) < MOST_REASONS
    outcomes[outcome, reason if is_told_apart else OTHER] += 1
