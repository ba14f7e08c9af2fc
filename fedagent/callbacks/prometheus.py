"""A run's numbers for Prometheus to scrape: what they mean is in docs/observability.md."""

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import util
from typing import Any

from flwr.app import ArrayRecord

from fedagent.callbacks.base import Callback, Settlement
from fedagent.errors import ConfigurationError, imported, require
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Kind

STALENESS_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds, in versions."""
DURATION_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
"""Upper bounds, in seconds."""

Scalar = tuple[str, str, Callable[[Statistics], float]]

COUNTERS: Sequence[Scalar] = (
    ("fedagent_versions", "Model versions published.", lambda s: s.version),
    ("fedagent_updates", "Updates that the rule has received.", lambda s: s.num_updates),
    (
        "fedagent_busy_node_seconds",
        "Time of nodes between dispatch and outcome, summed over train dispatches.",
        lambda s: s.busy_s,
    ),
)
GAUGES: Sequence[Scalar] = (
    (
        "fedagent_dispatches_in_flight",
        "Train dispatches without an outcome yet.",
        lambda s: s.in_flight,
    ),
    ("fedagent_concurrency_nodes", "Nodes that may train at once.", lambda s: s.concurrency),
    (
        "fedagent_most_nodes_at_work",
        "Most nodes at work at once so far, those that are waited for no longer included.",
        lambda s: s.at_work_max,
    ),
    ("fedagent_connected_nodes", "Nodes that are connected.", lambda s: s.num_nodes),
    (
        "fedagent_idle_nodes",
        "Connected nodes that could work and have nothing to do.",
        lambda s: s.num_idle,
    ),
    (
        "fedagent_buffered_updates",
        "Updates received that are not part of a version yet.",
        lambda s: s.buffered,
    ),
    (
        "fedagent_run_seconds",
        "Time on the run's clock since it began: virtual in simulation.",
        lambda s: s.now_s,
    ),
    (
        "fedagent_utilisation_ratio",
        "Share of the slots' time in which a node was at work.",
        lambda s: s.utilisation,
    ),
)


class Prometheus(Callback):
    """Serve ``/metrics`` over HTTP while a run lasts.

    Every run has a registry of its own, so several in one process do not mix, each on its port.
    There is no authentication: anybody who reaches the address can read.

    Parameters
    ----------
    port : 0 to 65535; 0 takes one that is free, see `url`.
    address : where to listen; this machine only by default, ``0.0.0.0`` for others as well.

    Raises
    ------
    DataUnavailableError
        If prometheus-client is not installed.
    ConfigurationError
        If, when the run starts, the port cannot be had.
    """

    def __init__(self, port: int = 9464, address: str = "127.0.0.1") -> None:
        require(0 <= port <= 65535, f"Prometheus: port={port} must lie in 0 to 65535.")
        self._client = imported("prometheus_client", "fedagent[prometheus]", "Prometheus")
        self._families = imported("prometheus_client.core", "fedagent[prometheus]", "Prometheus")
        self._port, self._address = port, address
        self._server: Any = None
        self._thread: Any = None

    @property
    def url(self) -> str:
        """Where the metrics are while a run lasts."""
        if self._server is None:
            raise RuntimeError("Nothing is served: the run has not started, or is over.")
        return f"http://{self._address}:{self._server.server_port}/metrics"

    def on_start(self, statistics: Statistics) -> None:
        """Begin to serve."""
        registry = self._client.CollectorRegistry()
        registry.register(_Totals(self._families, statistics))
        self._client.ProcessCollector(registry=registry)
        self._staleness = self._client.Histogram(
            "fedagent_update_staleness_versions",
            "Versions published between the dispatch of an update and its application.",
            buckets=STALENESS_BUCKETS,
            registry=registry,
        )
        self._durations = self._client.Histogram(
            "fedagent_dispatch_duration_seconds",
            "Time on the run's clock from when a node could begin with a dispatch to its end.",
            ["kind", "outcome"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._newest = _Newest(self._families)
        registry.register(self._newest)
        self._serve(registry)

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Observe how long it took and how stale it was."""
        self._durations.labels(str(settlement.dispatch.kind), str(settlement.outcome)).observe(
            settlement.duration_s
        )
        if settlement.staleness is not None:
            self._staleness.observe(settlement.staleness)

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Show the metrics that are numbers."""
        self._newest.by_source[evaluation.source] = evaluation

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def _serve(self, registry: Any) -> None:
        try:
            self._server, self._thread = self._client.start_http_server(
                self._port, self._address, registry
            )
        except OSError as error:
            raise ConfigurationError(
                f"Prometheus: cannot serve on {self._address}:{self._port} ({error}); choose "
                "another port or address. port=0 takes one that is free."
            ) from error
        # A forked worker would go on to hold the port when the run is over.
        util.register_after_fork(self._server, lambda server: server.socket.close())


class _Totals:
    """Reads the live statistics when it is scraped, in the server's thread.

    What is in flight changes without an event, so numbers kept from the last one would be wrong.
    """

    def __init__(self, families: Any, statistics: Statistics) -> None:
        self._families, self._statistics = families, statistics

    def collect(self) -> Iterator[Any]:
        """Yield the metrics that the statistics hold."""
        families, statistics = self._families, self._statistics
        for name, documentation, read in COUNTERS:
            yield families.CounterMetricFamily(name, documentation, value=read(statistics))
        for name, documentation, read in GAUGES:
            yield families.GaugeMetricFamily(name, documentation, value=read(statistics))
        dispatches = families.CounterMetricFamily(
            "fedagent_dispatches",
            "Dispatches that ended, by how.",
            labels=("kind", "outcome", "reason"),
        )
        by_kind = {
            Kind.TRAIN: statistics.outcomes,
            Kind.EVALUATE: statistics.evaluation_outcomes,
            Kind.UNMASK: statistics.unmasking_outcomes,
        }
        for kind, outcomes in by_kind.items():
            for (outcome, reason), count in dict(outcomes).items():  # a copy: it goes on changing
                dispatches.add_metric((str(kind), str(outcome), reason), count)
        yield dispatches
        unsolicited = families.CounterMetricFamily(
            "fedagent_unsolicited_replies",
            "Replies that settled no dispatch.",
            labels=("reason",),
        )
        for reason, count in dict(statistics.unsolicited).items():
            unsolicited.add_metric((reason,), count)
        yield unsolicited
        traffic = families.CounterMetricFamily(
            "fedagent_payload_bytes",
            "Serialised model bytes sent to (down) and received from (up) nodes.",
            labels=("direction",),
        )
        traffic.add_metric(("down",), statistics.bytes_down)
        traffic.add_metric(("up",), statistics.bytes_up)
        yield traffic


class _Newest:
    """The newest evaluation of every source; names that it lacks are gone, however many there were.

    Clients name their metrics, so that a gauge with a label for each would grow without an end.
    """

    def __init__(self, families: Any) -> None:
        self._families = families
        self.by_source: dict[str, Evaluation] = {}

    def collect(self) -> Iterator[Any]:
        """Yield the metrics that are numbers, and the versions that they are of."""
        metrics = self._families.GaugeMetricFamily(
            "fedagent_evaluation_metric",
            "The metrics of the newest evaluation, by who measured them.",
            labels=("source", "metric"),
        )
        versions = self._families.GaugeMetricFamily(
            "fedagent_evaluated_version",
            "The version that the newest metrics are of.",
            labels=("source",),
        )
        for source, evaluation in dict(self.by_source).items():  # a copy: it goes on changing
            versions.add_metric((source,), evaluation.version)
            for name, value in evaluation.numbers.items():
                metrics.add_metric((source, name), value)
        yield metrics
        yield versions
