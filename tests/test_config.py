from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from omegaconf import OmegaConf

from fedagent.callbacks import JsonLog, Prometheus
from fedagent.config import build_task, check, choices, compose, instantiate
from fedagent.errors import ConfigurationError
from fedagent.simulation import Lognormal, Pareto

CONF = Path(__file__).parents[1] / "conf"


def test_overrides_choose_groups_and_set_values():
    cfg = compose("strategy=fedasync fleet=pareto fleet.cap=30 seed=3", CONF)
    assert cfg.strategy._target_ == "fedagent.FedAsync"
    assert instantiate(cfg.fleet) == Pareto(num_nodes=100, cap=30.0, seed=3)


def test_about_names_the_experiment_and_nothing_else():
    cfg = compose(
        "strategy=fedasync fleet.cap=3 fleet=pareto seed=3 output_dir=/x display=false "
        "overwrite=true monitor=prometheus monitor.prometheus.port=0 runtime.workers=2 "
        "checkpoint=updates checkpoint.every=7",
        CONF,
    )
    assert cfg.about.strategy == "fedasync"
    assert cfg.about["fleet.cap"] == 3
    assert cfg.about.seed == 3
    unreported = {
        "output_dir",
        "overwrite",
        "display",
        "runtime",
        "runtime.workers",
        "monitor",
        "monitor.prometheus.port",
        "checkpoint",
        "checkpoint.every",
    }
    assert not unreported & set(cfg.about)


def test_whoever_changes_a_configuration_changes_it_for_nobody_else():
    first = compose("seed=7", CONF)
    first.output_dir, first.strategy.prefetch = "/elsewhere", 3
    again = compose("seed=7", CONF)
    assert (again.output_dir, again.strategy.prefetch) == (None, 0)


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
        # a choice that its group does not offer
        ("strategy=fedbuf", "strategy=fedbuf is no choice; did you mean fedbuff?"),
        ("monitor=[jsn,prometheus]", "did you mean json?"),
        ("experiment=two_node_lineer", "did you mean two_node_linear"),
        ("debug=onn", "did you mean on?"),
        ("strategy=3", "strategy=3 is no choice; there are: ace, aced"),
        ("strategy=null", "strategy=null is no choice"),
        ("hydra/launcher=jobli", "hydra/launcher/jobli"),
        ("strategy.rule.max_age=3 strategy=acee", "did you mean ace or aced?"),  # the cause first
        # a key that the configuration does not have, at any depth
        ("strategi=fedbuff", "did you mean strategy?"),
        ("strategy=fedbuff strategy.bufer_size=3", "did you mean strategy.buffer_size?"),
        ("fleet.links.latncy_s=3", "did you mean fleet.links.latency_s?"),
        ("learning_rat=3", "did you mean learning_rate?"),
        ("max_updates=3", "did you mean stopping.max_updates?"),
        ("hydra.swep.dir=x", "hydra.sweep.dir"),
        ("~strateg", "did you mean strategy?"),
        ("monitor=json monitor.json.level=debug learning_rat=3", "did you mean learning_rate?"),
        ("xyzzy=3", "there are: app, attack, baseline, buffer_size"),
        # words that are no override of one value
        ("fleet.num_nodes", "write fleet.num_nodes=VALUE."),
        ("sed", "sed is not KEY=VALUE; did you mean seed?"),
        ("monitor=[json", "monitor=[json cannot be read"),
        ("strategy='fedbuff", "No closing quotation"),
        ("seed=1,2", "sweep with -m"),
        ("strategy=fedbuff,fedavg", "sweep with -m"),
        # values of another type than config.yaml's
        ("seed=abc", "seed='abc' must be int"),
        ("buffer_size=2.5", "buffer_size=2.5 must be int"),
        ("learning_rate=fast", "learning_rate='fast' must be float"),
        ("display=maybe", "display='maybe' must be bool"),
        # flags
        ("--multirun seed=1", "--multirun is for `fedagent run`"),
        ("--cfg", "expected one argument"),
        ("--config-name=confg", "did you mean config?"),
        ("--config-dir=nowhere", "nowhere is no folder"),
    ],
)
def test_a_misspelt_override_says_in_a_line_or_two_what_would_fit(override, says):
    with pytest.raises(ConfigurationError) as error:
        compose(override, CONF)
    assert says in str(error.value)
    assert str(error.value).count("\n") < 2
    assert "search path" not in str(error.value)


@pytest.mark.parametrize("group", sorted(p.parent.parent.name for p in CONF.glob("*/base/*.yaml")))
def test_what_a_group_shares_is_no_choice(group):
    shared = next((CONF / group / "base").glob("*.yaml")).stem
    assert not any("base" in name for name in choices(CONF))
    with pytest.raises(ConfigurationError, match=f"{group}=base/{shared} is no choice"):
        compose(f"{group}=base/{shared}", CONF)


def test_files_that_do_not_fit_each_other_are_named(tmp_path):
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "equal.yaml").write_text("num_nodes: 3\n")
    (tmp_path / "config.yaml").write_text("defaults:\n  - _self_\n  - fleet: eqal\nseed: 1\n")
    with pytest.raises(ConfigurationError, match="In 'config': Could not find 'fleet/eqal'"):
        compose("seed=2", tmp_path)


def test_flags_say_where_configurations_come_from(tmp_path):
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("_target_: mine.Strategy\n")
    (tmp_path / "small.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    cfg = compose(f"--config-dir={tmp_path} strategy=mine --config-name small fleet=equal", CONF)
    assert (cfg.strategy._target_, cfg.seed, cfg.about.fleet) == ("mine.Strategy", 7, "equal")
    with pytest.raises(ConfigurationError, match="did you mean mine"):
        compose(f"strategy=min --config-dir={tmp_path}", CONF)


def test_a_strategy_leaves_how_clients_train_alone():
    usual = compose("", CONF)
    as_written = OmegaConf.to_container(usual.client, resolve=False)
    for name in choices(CONF)["strategy"]:
        cfg = compose(f"strategy={name}", CONF)
        assert cfg.learning_rate == usual.learning_rate, name
        assert OmegaConf.to_container(cfg.client, resolve=False) == as_written, name


PAPER = "paper"  # the one that is named for where it is from


def test_the_classical_settings_are_those_of_before_there_was_a_pace():
    cfg = compose(f"tuned={PAPER} cohort=7", CONF)
    assert cfg.scheduler._target_ == "fedagent.scheduling.Uniform"
    assert cfg.strategy.concurrency == cfg.strategy.cohort == 7


@pytest.mark.parametrize("name", choices(CONF)["tuned"])
def test_tuned_settings_come_with_their_strategy(name):
    cfg = compose(f"tuned={name}", CONF)
    assert cfg.about.tuned == name
    assert cfg.about.strategy == ("fedbuff" if name == PAPER else name)
    assert compose(f"tuned={name} learning_rate=0.123", CONF).learning_rate == 0.123


def test_every_strategy_has_tuned_settings_and_the_usual_ones_are_those_of_the_usual_strategy():
    assert sorted([*choices(CONF)["strategy"], PAPER]) == choices(CONF)["tuned"]
    usual, tuned = compose("", CONF), compose("tuned=ringmaster_lmo", CONF)
    del usual.about, tuned.about
    assert usual == tuned


def test_an_application_keeps_its_own_rate_under_any_strategy():
    rates = {
        compose(f"app=medical strategy={s}", CONF).learning_rate for s in ("fedavg", "fedasync")
    }
    assert rates == {0.05}


@pytest.mark.parametrize(
    ("override", "node", "says"),
    [
        ("strategy=fedbuff strategy.normalise=sum", "strategy", "choose one of: buffer, weights"),
        ("strategy=fedbuff strategy.buffer_size=0", "strategy", "buffer_size=0 must be at least 1"),
        ("strategy=fedbuff staleness.a=-1", "strategy", "parameters negative"),
        ("fleet.num_nodes=0", "fleet", "num_nodes=0"),
        ("client.optimizer=sdg", "client", "choose one of: .*adam"),
        (
            "strategy=fedbuff strategy.buffer_size=2.5",
            "strategy",
            "buffer_size=2.5 must be 'cohort' or int",
        ),
        ("strategy=fedadam strategy.strategy.eta=big", "strategy", "eta='big' must be float"),
        ("monitor=json monitor.json.level=loud", "monitor", "choose one of: debug"),
        ("monitor=prometheus monitor.prometheus.port=x", "monitor", "port='x' must be int"),
        ("stopping.max_updates=null", "stopping", "nothing would ever end the run"),
        ("fleet.seconds_per_step=fast", "fleet", "seconds_per_step='fast' must be float"),
        ("fleet.links.latency_s=x", "fleet", "fleet.links.latency_s='x' must be float"),
        ("strategy=fedbuff buffer_size=${nope}", "strategy", "Interpolation key 'nope' not found"),
        ("strategy=collaborative mixing=file", "strategy", "Missing mandatory value: mixing.path"),
        ("strategy.concurrency=many", "strategy", "concurrency='many' must be int or 'auto'"),
    ],
)
def test_an_impossible_value_says_why(override, node, says):
    cfg = compose(override, CONF)
    with pytest.raises(ConfigurationError, match=says):
        instantiate(cfg[node], **({"callbacks": [], "stopping": []} if node == "strategy" else {}))


@dataclass
class Pet:
    """Something with an enumeration."""

    kind: Literal["cat", "dog"] = "cat"
    age: int | Literal["unknown"] = "unknown"
    friend: "Pet | None" = None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"kind": "cta"},
            r"pet.kind='cta' is unknown; choose one of: cat, dog. Did you mean cat\?",
        ),
        ({"age": "old"}, r"pet.age='old' must be 'unknown' or int"),
        ({"friend": {"_target_": f"{__name__}.Pet", "kind": "god"}}, "pet.friend.kind='god'"),
    ],
)
def test_an_enumeration_is_checked_wherever_it_stands(settings, says):
    cfg = OmegaConf.create({"pet": {"_target_": f"{__name__}.Pet", **settings}})
    for refuse in (check, lambda cfg: instantiate(cfg.pet)):
        with pytest.raises(ConfigurationError, match=says):
            refuse(cfg)
    assert instantiate(OmegaConf.create({"_target_": f"{__name__}.Pet", "age": 3})) == Pet(age=3)


def test_a_check_that_follows_nothing_needs_no_resolver():
    cfg = OmegaConf.create({"pet": {"_target_": f"{__name__}.Pet", "kind": "${mine:x}"}})
    check(cfg, follow=False)


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
