from pathlib import Path

import pytest

from fedagent.callbacks import JsonLog, Prometheus
from fedagent.config import build_task, choices, compose, instantiate
from fedagent.errors import ConfigurationError
from fedagent.simulation import Pareto
from fedagent.simulation.profiles import Lognormal

CONF = Path(__file__).parents[1] / "conf"


def test_overrides_choose_groups_and_set_values():
    cfg = compose("strategy=fedasync fleet=pareto fleet.cap=30 seed=3", CONF)
    assert cfg.strategy._target_ == "fedagent.FedAsync"
    assert instantiate(cfg.fleet) == Pareto(num_nodes=100, cap=30.0, seed=3)


def test_about_names_the_experiment_and_nothing_else():
    cfg = compose(
        "strategy=fedasync fleet.cap=3 fleet=pareto seed=3 output_dir=/x display=false "
        "monitor=prometheus monitor.prometheus.port=0",
        CONF,
    )
    assert cfg.about.strategy == "fedasync"
    assert cfg.about["fleet.cap"] == 3
    assert cfg.about.seed == 3
    unreported = {"output_dir", "display", "runtime", "monitor", "monitor.prometheus.port"}
    assert not unreported & set(cfg.about)


def test_whoever_changes_a_configuration_changes_it_for_nobody_else():
    first = compose("seed=7", CONF)
    first.output_dir, first.strategy.buffer_size = "/elsewhere", 99
    again = compose("seed=7", CONF)
    assert (again.output_dir, again.strategy.buffer_size) == (None, 10)


def test_workers_of_a_simulation_find_what_the_server_composed(monkeypatch):
    compose("seed=8", CONF)
    monkeypatch.setattr("hydra.compose", None)
    assert compose("seed=8", CONF).seed == 8


def test_several_monitors_watch_a_run():
    cfg = compose("'monitor=[prometheus,json]' monitor.json.level=debug", CONF)

    watching = instantiate(cfg.monitor)

    assert {name: type(monitor) for name, monitor in watching.items()} == {
        "prometheus": Prometheus,
        "json": JsonLog,
    }
    assert instantiate(compose("", CONF).monitor) == {}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("strategy=fedbuf", "fedbuff"),
        ("strategi=fedbuff", "did you mean strategy"),
        ("strategy.bufer_size=3", "did you mean strategy.buffer_size"),
        ("learning_rat=3", "did you mean learning_rate"),
        ("xyzzy=3", "there are: app, buffer_size"),
        ("monitor=json monitor.json.level=debug learning_rat=3", "did you mean learning_rate"),
        ("fleet.num_nodes", "fleet.num_nodes"),
    ],
)
def test_a_misspelt_override_names_what_would_fit(override, says):
    with pytest.raises(ConfigurationError, match=says):
        compose(override, CONF)


@pytest.mark.parametrize(
    ("override", "node", "says"),
    [
        ("strategy.normalise=sum", "strategy", "choose one of: buffer, weights"),
        ("strategy.buffer_size=0", "strategy", "buffer_size=0 must be at least 1"),
        ("staleness.a=-1", "strategy", "parameters negative"),
        ("fleet.num_nodes=0", "fleet", "num_nodes=0"),
        ("client.optimizer=sdg", "client", "choose one of: .*adam"),
        ("strategy.buffer_size=2.5", "strategy", "buffer_size=2.5 must be int"),
        ("strategy=fedadam strategy.strategy.eta=big", "strategy", "eta='big' must be float"),
        ("monitor=json monitor.json.level=loud", "monitor", "choose one of: debug"),
        ("monitor=prometheus monitor.prometheus.port=x", "monitor", "port='x' must be int"),
        ("stopping.max_updates=null", "stopping", "nothing would ever end the run"),
        ("fleet.seconds_per_step=fast", "fleet", "seconds_per_step='fast' must be float"),
    ],
)
def test_an_impossible_value_says_why(override, node, says):
    cfg = compose(override, CONF)
    with pytest.raises(ConfigurationError, match=says):
        instantiate(cfg[node])


def test_a_task_is_built_once_per_configuration():
    first, second = (build_task(compose("fleet.num_nodes=5", CONF)) for _ in range(2))
    other = build_task(compose("fleet.num_nodes=6", CONF))
    assert first is second
    assert (first.num_partitions, other.num_partitions) == (5, 6)


def test_choices_lists_every_group():
    groups = choices(CONF)
    assert {
        "app",
        "strategy",
        "staleness",
        "fleet",
        "runtime",
        "stopping",
        "partition",
        "experiment",
    } <= set(groups)
    assert "fedbuff" in groups["strategy"]


@pytest.fixture
def drawn(monkeypatch):
    """The nodes whose profiles were drawn."""
    nodes = []
    profile = Lognormal.profile
    monkeypatch.setattr(Lognormal, "profile", lambda self, i: nodes.append(i) or profile(self, i))
    return nodes


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "label_by_speed"])
def test_building_a_task_over_a_million_nodes_draws_no_speed(partition, drawn):
    fleet = "fleet=lognormal fleet.num_nodes=1_000_000"
    task = build_task(compose(f"app=vision partition={partition} {fleet}", CONF))
    assert task.num_partitions == 1_000_000
    last = build_task(compose(f"app=regression {fleet}", CONF)).num_examples(999_999)
    assert (last, drawn) == (32, [])


@pytest.mark.parametrize(("partition", "count"), [("iid", 0), ("shards", 0), ("label_by_speed", 9)])
def test_only_a_partition_that_follows_speed_draws_the_speeds(partition, count, drawn):
    words = f"app=vision partition={partition} fleet=lognormal fleet.num_nodes=9 fleet.sigma=1.3"
    assert build_task(compose(words, CONF)).num_examples(0) > 0
    assert drawn == list(range(count))
