"""The dashboard asks for metrics that the proxy serves, and for all of them."""

import json
import re
from pathlib import Path

import pytest

from fedagent.callbacks import Prometheus
from fedagent.statistics import Evaluation, Statistics

DASHBOARD = Path(__file__).parents[2] / "server" / "deploy" / "grafana.json"
ASKED = re.compile(r"fedagent_[a-z_]+")


@pytest.fixture(scope="module")
def served() -> str:
    """What the proxy serves after an evaluation."""
    client = pytest.importorskip("prometheus_client")
    registries = []
    watching = Prometheus(port=0)
    watching._serve = registries.append
    statistics = Statistics()
    statistics.outcomes["failed", "error"] += 1
    statistics.unsolicited["late"] += 1
    watching.on_start(statistics)
    watching.on_evaluation(statistics, Evaluation(1, 2.0, 3, "server", {"accuracy": 0.5}))
    watching._durations.labels("train", "applied").observe(1.0)
    return client.generate_latest(registries[0]).decode()


def asked_for() -> dict[str, list[str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {one["title"]: [target["expr"] for target in one["targets"]] for one in panels}


def test_every_name_and_label_that_is_asked_for_is_served(served):
    names = {re.split(r"[{ ]", line)[0] for line in served.splitlines() if line[:1] != "#"}
    labels = {*re.findall(r"([a-z_]+)=\"", served), "instance"}
    for title, expressions in asked_for().items():
        for expression in expressions:
            assert set(ASKED.findall(expression)) <= names, title
            for grouping in re.findall(r"by \(([a-z, ]+)\)", expression):
                assert set(grouping.split(", ")) <= labels, title
            for selector in re.findall(r"\{([^}]*)\}", expression):
                assert set(re.findall(r"([a-z]+)[=!~]+\"", selector)) <= labels, title


def test_every_metric_of_a_run_is_on_it(served):
    told = {line.split()[2] for line in served.splitlines() if line.startswith("# TYPE fedagent_")}
    asked = " ".join(one for expressions in asked_for().values() for one in expressions)
    missing = {name for name in told if name not in asked and not name.endswith("_created")}
    assert missing == set()


def test_panels_do_not_lie_on_one_another():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [tuple(one["gridPos"][key] for key in ("x", "y")) for one in panels]
    assert len(set(places)) == len(places)
    assert len({one["id"] for one in panels}) == len(panels)
