"""What Prometheus gets to see is what the run counts."""

import multiprocessing
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg
from prometheus_client.parser import text_string_to_metric_families

from fedagent import FedAsync, FedBuff
from fedagent.callbacks import Callback, Prometheus
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.simulation import Equal, Lognormal
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from fedagent.strategies.synchronous import Synchronous
from fedagent.update import Outcome
from tests.toy import Log, client_app, run

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "observability.md").read_text("utf-8")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"fedagent_{name}", frozenset(labels.items())]


class Scraper(Callback):
    """Scrapes when the run ends; stands before `prometheus` among the callbacks."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.prometheus = prometheus
        self.last: Samples = {}

    def on_end(self, statistics, end, arrays):
        self.last = scrape(self.prometheus.url)


@contextmanager
def serving(prometheus: Prometheus) -> Iterator[Prometheus]:
    prometheus.on_start(Statistics())
    try:
        yield prometheus
    finally:
        prometheus.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)


def failing_for_one(partition, reply):
    if partition == 1:
        raise ValueError("broken sensor")


def test_scraped_numbers_are_those_of_the_run():
    prometheus, log = Prometheus(port=0), Log()
    scraper = Scraper(prometheus)
    strategy = FedBuff(
        concurrency=4,
        fraction_evaluate=0.25,
        evaluate_clients_every=2,
        callbacks=[scraper, prometheus, log],
    )

    run(
        strategy,
        Lognormal(num_nodes=8),
        rounds=6,
        client=client_app(failing_for_one),
        evaluate_fn=lambda version, arrays: MetricRecord({"loss": 1.0 / (1 + version)}),
    )

    seen, statistics = scraper.last, log.statistics
    assert value(seen, "versions_total") == statistics.version == 6
    assert value(seen, "updates_total") == statistics.num_updates == 24
    assert value(seen, "payload_bytes_total", direction="down") == statistics.bytes_down > 0
    assert value(seen, "payload_bytes_total", direction="up") == statistics.bytes_up > 0
    assert value(seen, "busy_node_seconds_total") == pytest.approx(statistics.busy_s)
    counted = {
        (dict(labels)["kind"], dict(labels)["outcome"], dict(labels)["reason"]): count
        for (name, labels), count in seen.items()
        if name == "fedagent_dispatches_total"
    }
    assert counted == {
        **{("train", *key): n for key, n in statistics.outcomes.items()},
        **{("evaluate", *key): n for key, n in statistics.evaluation_outcomes.items()},
    }
    assert {outcome for _, outcome, _ in counted} == {"applied", "failed", "expired"}
    assert value(seen, "connected_nodes") == 8
    assert value(seen, "concurrency_nodes") == 4
    assert value(seen, "evaluation_metric", source="server", metric="loss") == pytest.approx(1 / 7)
    assert value(seen, "evaluated_version", source="server") == 6
    error = statistics.evaluations[-1]
    assert error.source == "clients"
    assert value(seen, "evaluation_metric", source="clients", metric="error") == pytest.approx(
        error.metrics["error"]
    )


def test_documentation_names_what_is_served_and_nothing_else():
    prometheus = Prometheus(port=0)
    scraper = Scraper(prometheus)
    strategy = FedBuff(buffer_size=2, concurrency=2, callbacks=[scraper, prometheus])
    run(strategy, Equal(num_nodes=4), rounds=2)
    served = {
        re.sub("_(bucket|count|sum|created)$", "", name): tuple(
            sorted(label for label, _ in labels if label != "le")
        )
        for name, labels in scraper.last
        if name.startswith("fedagent_")
    }

    rows = re.findall(r"^\| `(fedagent_\w+)` \| \w+ \|([^|]*)\|", DOCUMENTATION, re.MULTILINE)
    documented = {name: tuple(sorted(re.findall(r"`(\w+)`", labels))) for name, labels in rows}

    never_here = {"fedagent_unsolicited_replies_total": ("reason",)}
    assert documented == served | never_here


def test_flowers_own_strategy_is_seen_as_well():
    prometheus = Prometheus(port=0)
    scraper = Scraper(prometheus)
    strategy = Synchronous(FedAvg(fraction_evaluate=0.0), callbacks=[scraper, prometheus])

    run(strategy, Equal(num_nodes=4), rounds=3)

    assert value(scraper.last, "versions_total") == 3
    applied = {"kind": "train", "outcome": "applied", "reason": ""}
    assert value(scraper.last, "dispatches_total", **applied) == 12


def test_names_that_the_newest_evaluation_lacks_are_gone():
    prometheus = Prometheus(port=0)
    statistics = Statistics()
    prometheus.on_start(statistics)
    try:
        for version in range(3):
            metrics = {f"name-{version}": 0.5}
            evaluation = Evaluation(version, 0.0, version, "clients", metrics)
            prometheus.on_evaluation(statistics, evaluation)
        prometheus.on_evaluation(statistics, Evaluation(1, 0.0, 1, "server", {"loss": 0.1}))
        seen = scrape(prometheus.url)
    finally:
        prometheus.on_end(statistics, RunEnd("completed", "end"), ArrayRecord)
    shown = {dict(labels)["metric"] for name, labels in seen if "evaluation_metric" in name}
    assert shown == {"name-2", "loss"}


def test_histograms_hold_every_settlement_once():
    prometheus, log = Prometheus(port=0), Log()
    scraper = Scraper(prometheus)
    strategy = FedAsync(concurrency=4, fraction_evaluate=0.0, callbacks=[scraper, prometheus, log])

    run(strategy, Lognormal(num_nodes=8), rounds=20)

    applied = [s for s in log.settlements if s.outcome is Outcome.APPLIED]
    seen = scraper.last
    assert value(seen, "update_staleness_versions_count") == len(applied)
    assert value(seen, "update_staleness_versions_sum") == log.statistics.staleness_sum > 0
    assert value(seen, "update_staleness_versions_bucket", le="2.0") == sum(
        s.staleness <= 2 for s in applied
    )
    labels = {"kind": "train", "outcome": "applied"}
    assert value(seen, "dispatch_duration_seconds_count", **labels) == len(applied)
    assert value(seen, "dispatch_duration_seconds_sum", **labels) == pytest.approx(
        sum(s.duration_s for s in applied)
    )


def test_gauges_are_read_when_scraped_not_at_the_last_event():
    prometheus = Prometheus(port=0)
    statistics = Statistics()
    prometheus.on_start(statistics)
    try:
        statistics.in_flight, statistics.num_idle, statistics.buffered = 7, 2, 3
        statistics.at_work_max = 9
        seen = scrape(prometheus.url)
    finally:
        prometheus.on_end(statistics, RunEnd("completed", "end"), ArrayRecord)

    assert value(seen, "dispatches_in_flight") == 7
    assert value(seen, "idle_nodes") == 2
    assert value(seen, "most_nodes_at_work") == 9
    assert value(seen, "buffered_updates") == 3


def test_two_runs_in_one_process_do_not_mix():
    with serving(Prometheus(port=0)) as one, serving(Prometheus(port=0)) as other:
        statistics = Statistics(version=5)
        third = Prometheus(port=0)
        third.on_start(statistics)
        try:
            versions = [value(scrape(p.url), "versions_total") for p in (one, other, third)]
        finally:
            third.on_end(statistics, RunEnd("completed", "end"), ArrayRecord)

    assert versions == [0, 0, 5]


@pytest.mark.parametrize("ends_well", [True, False])
def test_port_is_free_again_after_a_run(ends_well):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def evaluate(version, arrays):
        if version == 2 and not ends_well:
            raise ZeroDivisionError("evaluate_fn is broken")

    for _ in range(2):
        strategy = FedAsync(concurrency=2, fraction_evaluate=0.0, callbacks=[Prometheus(port)])
        try:
            run(strategy, Equal(num_nodes=2), rounds=3, evaluate_fn=evaluate)
        except ZeroDivisionError:
            assert not ends_well
        with socket.socket() as connection, pytest.raises(ConnectionRefusedError):
            connection.connect(("127.0.0.1", port))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_forked_worker_does_not_keep_the_port():
    processes = multiprocessing.get_context("fork")
    with serving(Prometheus(port=0)) as prometheus:
        port = int(prometheus.url.split(":")[2].split("/")[0])
        released = processes.Event()
        worker = processes.Process(target=released.wait, args=(60,))
        worker.start()
        scrape(prometheus.url)  # closing the worker's copy has not closed ours
    try:
        with serving(Prometheus(port)) as again:
            scrape(again.url)
    finally:
        released.set()
        worker.join()


def test_port_in_use_says_so_and_what_to_do():
    with serving(Prometheus(port=0)) as first:
        port = int(first.url.split(":")[2].split("/")[0])
        strategy = FedAsync(concurrency=2, callbacks=[Prometheus(port)])

        with pytest.raises(ConfigurationError, match=rf"127.0.0.1:{port} .*in use.*port=0"):
            run(strategy, Equal(num_nodes=2))


def test_impossible_port_is_refused():
    with pytest.raises(ConfigurationError, match="port=70000"):
        Prometheus(port=70_000)


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[prometheus\]"'):
        Prometheus()
