"""Everything about an `AsyncStrategy` that is not its rule, in Flower's words where it has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from flwr.app import MetricRecord, RecordDict

from fedagent._flower import aggregate_metricrecords
from fedagent.admission.gate import Admission
from fedagent.arrays import Carry
from fedagent.callbacks import Callback
from fedagent.errors import check_types, require
from fedagent.journal import Checkpoints
from fedagent.nodes.backoff import Backoff
from fedagent.nodes.geography import Attributes
from fedagent.proxy.robust import Robust
from fedagent.proxy.secure import SecureAggregation
from fedagent.scheduling import AutoConcurrency, PerNode, Scheduler, Uniform
from fedagent.scheduling.per_node import require_prefetch
from fedagent.stopping import Stopping
from fedagent.wire.coding import Coding
from fedagent.wire.records import common_metrics

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]


@dataclass(frozen=True)
class AsyncOptions:
    """How a proxy works, whatever its rule.

    The first ten are those of Flower's ``FedAvg`` with the same defaults. A round is as many
    updates as its cohort has nodes when it begins.

    Parameters
    ----------
    fraction_train : without `cohort`, the share of the connected nodes that is one.
    fraction_evaluate : share of the connected nodes in a federated evaluation; 0 for none. Nodes
        that training leaves idle are asked first; one at work evaluates after its job, one
        with two rounds still to answer is left out. Nobody waits for the answers.
    min_train_nodes, min_evaluate_nodes : lower bounds of the two numbers above.
    min_available_nodes : nodes to wait for before the first dispatch.
    weighted_by_key : the metric that holds a client's weight.
    arrayrecord_key, configrecord_key : keys of the records in a message.
    train_metrics_aggr_fn, evaluate_metrics_aggr_fn : (list[RecordDict], weighted_by_key) ->
        MetricRecord. The records hold the clients' metrics, not their arrays.
    cohort : updates of a round, >= 1; None for `concurrency` where that is a number, otherwise for
        Flower's cohort, max(`fraction_train` * connected nodes, `min_train_nodes`).
    concurrency : nodes that train at once, >= 1; None for as many as a cohort has; "auto", or an
        `AutoConcurrency`, for as many as bring updates that are not too stale. Nobody waits for a
        cohort, so it need not be over-committed: more may be at work than a buffer holds.
    deadline_s : clock seconds a node may take to answer, > 0; None for start()'s ``timeout``. What
        comes later is not applied, but its node gets work again when it does.
    deadline_factor : >= 1; shorten `deadline_s` to so many times what nodes usually take, see
        `fedagent.nodes.deadlines`; None for 3 on a SuperLink and, in a simulation, for infinity,
        which leaves it as it is.
    drain_s : seconds that a run which gets SIGTERM waits for what is in flight, >= 0. Then it ends
        as any other and leaves its files; a second SIGTERM ends it at once.
    scheduler : who works next and how much; default `Uniform`.
    stopping : conditions besides `num_rounds`; the first that holds ends the run.
    callbacks : who watches the run.
    evaluate_every : rounds from one call of ``evaluate_fn`` to the next; the last one has one
        too. On a wall clock it runs beside the loop, and a slow one leaves rounds out.
    evaluate_clients_every : rounds from one federated evaluation to the next; the last one has
        one too.
    max_num_examples, require_token, max_metric_values : see `Admission`.
    carried : what becomes of buffers that are not averaged, such as ``{"*.pointer": "newest"}``:
        a policy (count, newest or keep) by name pattern, the first that fits; see
        `fedagent.arrays`. A floating buffer that it names is no longer averaged.
    backoff : waiting after failures.
    prefetch : jobs queued at a node beyond the one it works on, 0 to 3: the link and the proxy are
        no wait for it, but its models are older. A node that has queued jobs counts once in
        `concurrency`. While nodes are idle, one at work finishes what it has and makes room for
        them; when all are at work, their queues are filled up again with every reply.
    publish_every_s : seconds on the run's clock after which what arrived makes a version; None
        leaves it to the rule. See `fedagent.rules.Periodic`.
    per_node : B_k, M_k and prefetch by device class.
    robust : what is done against nodes that lie; see `Robust`.
    codec : how models and updates travel between fedagent's own nodes, or others with
        `fedagent.client.mods.codec_mod`, and the proxy: a `Coding`, or its `up` alone, such as
        ``["topk:0.05", "int4"]``; None for Flower's way. By default as one array on a real fleet.
    secure : sums of buffers under masks, of which the proxy sees nothing else; None for updates
        that it sees. See `SecureAggregation`.
    seed : of the sample of nodes that evaluates.
    checkpoint : when the run's state is saved, and whether it goes on from what was; None for
        never. On a real fleet updates are logged between two checkpoints, each before it counts.
        See `fedagent.journal`.
    membership_interval_s : clock seconds between two looks at the list of nodes. Of a simulated
        fleet that comes and goes the connected ones beyond 1,000 nodes are estimated, not counted.
    """

    UNSAVED: ClassVar = ("stopping", "callbacks", "checkpoint")

    fraction_train: float = 1.0
    fraction_evaluate: float = 1.0
    min_train_nodes: int = 2
    min_evaluate_nodes: int = 2
    min_available_nodes: int = 2
    weighted_by_key: str = "num-examples"
    arrayrecord_key: str = "arrays"
    configrecord_key: str = "config"
    train_metrics_aggr_fn: MetricsAggregation | None = None
    evaluate_metrics_aggr_fn: MetricsAggregation | None = None
    cohort: int | None = None
    concurrency: int | Literal["auto"] | AutoConcurrency | None = None
    deadline_s: float | None = None
    deadline_factor: float | None = None
    drain_s: float = 20.0
    scheduler: Scheduler = field(default_factory=Uniform)
    stopping: Sequence[Stopping] = ()
    callbacks: Sequence[Callback] = ()
    evaluate_every: int = 1
    evaluate_clients_every: int = 1
    max_num_examples: float = 1e9
    require_token: bool = False
    max_metric_values: int = 10_000
    carried: Mapping[str, Carry] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    membership_interval_s: float = 5.0
    prefetch: int = 0
    publish_every_s: float | None = None
    per_node: PerNode | None = None
    robust: Robust = field(default_factory=Robust)
    codec: Coding | str | Sequence[str] | None = field(
        default_factory=lambda: Coding(in_simulation=False)
    )
    secure: SecureAggregation | None = None
    seed: int = 0
    checkpoint: Checkpoints | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("fraction_train", "fraction_evaluate"):
            require(
                0.0 <= getattr(self, name) <= 1.0,
                f"{name}={getattr(self, name)} must lie in [0, 1].",
            )
        require(
            not isinstance(self.concurrency, int) or self.concurrency >= 1,
            f'concurrency={self.concurrency!r} must be "auto", or a number of at least 1: nobody '
            "would ever train.",
        )
        require(
            self.cohort is None or self.cohort >= 1,
            f"cohort={self.cohort} must be at least 1: a round would never have an update.",
        )
        require(
            self.deadline_s is None or self.deadline_s > 0,
            f"deadline_s={self.deadline_s} must be positive: no reply would ever be in time.",
        )
        require(
            self.deadline_factor is None or self.deadline_factor >= 1,
            f"deadline_factor={self.deadline_factor} must be at least 1: all would be late.",
        )
        require(self.drain_s >= 0, f"drain_s={self.drain_s} must not be negative.")
        require(
            self._fixed is not None
            or self.cohort is not None
            or self.fraction_train > 0
            or self.min_train_nodes > 0,
            "fraction_train=0 and min_train_nodes=0: nobody would ever train; set concurrency.",
        )
        for name in ("evaluate_every", "evaluate_clients_every", "min_available_nodes"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1.")
        require_prefetch(self.prefetch)
        self.coding(in_simulation=True)
        require(
            self.membership_interval_s > 0,
            f"membership_interval_s={self.membership_interval_s} must be positive.",
        )

    @property
    def admission(self) -> Admission:
        """The gate these options ask for."""
        return Admission(
            self.weighted_by_key,
            self.max_num_examples,
            self.require_token,
            self.max_metric_values,
            arrayrecord_key=self.arrayrecord_key,
        )

    def coding(self, in_simulation: bool) -> Coding | None:
        """Return what is encoded, if anything is."""
        wanted = self.codec
        coding = wanted if isinstance(wanted, Coding) or wanted is None else Coding(wanted)
        if coding is None or not coding.is_any or (in_simulation and not coding.in_simulation):
            return None
        return coding

    def prefetch_of(self, node_id: int, attributes: Attributes) -> int:
        """Return how many jobs may wait at a node."""
        own = self.per_node.of(node_id, attributes).prefetch if self.per_node else None
        return self.prefetch if own is None else own

    @property
    def max_prefetch(self) -> int:
        """The most jobs that may wait at any node."""
        classes = self.per_node.settings if self.per_node else ()
        return max(self.prefetch, *(own.prefetch or 0 for own in classes), 0)

    @property
    def _fixed(self) -> int | None:
        """The concurrency, where it is a number."""
        return self.concurrency if isinstance(self.concurrency, int) else None

    def cohort_of(self, num_nodes: int) -> int:
        """Return how many updates a round of `num_nodes` connected nodes has."""
        by_share = max(int(num_nodes * self.fraction_train), self.min_train_nodes)
        wanted = self.cohort or self._fixed or by_share
        return min(wanted, num_nodes)

    def num_training(self, num_nodes: int) -> int:
        """Return how many of `num_nodes` connected nodes train at once, at first if it changes."""
        return min(self._fixed or self.cohort_of(num_nodes), num_nodes)

    def num_evaluating(self, num_nodes: int) -> int:
        """Return how many of `num_nodes` connected nodes are wanted in a federated evaluation."""
        if self.fraction_evaluate == 0.0:
            return 0
        return min(num_nodes, max(int(num_nodes * self.fraction_evaluate), self.min_evaluate_nodes))

    def aggregate(self, metrics: Sequence[MetricRecord], is_train: bool) -> MetricRecord:
        """Aggregate the metrics that train or evaluate replies share; of none there are none."""
        if not metrics:
            return MetricRecord()
        chosen = self.train_metrics_aggr_fn if is_train else self.evaluate_metrics_aggr_fn
        return (chosen or aggregate_metricrecords)(common_metrics(metrics), self.weighted_by_key)
