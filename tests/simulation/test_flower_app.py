"""The Flower App in a folder: what it is made of, and what it is configured with."""

from pathlib import Path

import pytest

from fedagent.errors import ConfigurationError
from fedagent.simulation.flower_app import FlowerApp, take_run_config

COMPONENTS = """
[tool.flwr.app.components]
serverapp = "s:app"
clientapp = "c:app"
"""
CONFIG = """
[tool.flwr.app.config]
lr = 0.1
num-rounds = 3
name = "a"
is-fast = true
[tool.flwr.app.config.data]
noise = 0.5
"""


def app_in(folder: Path, text: str) -> FlowerApp:
    (folder / "pyproject.toml").write_text(text)
    return FlowerApp.found_in(folder)


@pytest.mark.parametrize(
    "text", ["", "[tool.flwr.app.components]\nserverapp='s:app'", "[tool", "[tool]\nflwr='1'"]
)
def test_what_is_no_app_is_said_to_be_none(text, tmp_path):
    with pytest.raises(ConfigurationError, match="is not a Flower App"):
        app_in(tmp_path, text)


def test_an_app_without_settings_has_none(tmp_path):
    app = app_in(tmp_path, COMPONENTS)
    assert (app.serverapp, app.clientapp, app.run_config([])) == ("s:app", "c:app", {})


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        ([], {}),
        (["lr=0.5 num-rounds=5"], {"lr": 0.5, "num-rounds": 5}),
        (["lr=1e-3", "is-fast=false"], {"lr": 1e-3, "is-fast": False}),
        (["name='b c' data.noise=0.25"], {"name": "b c", "data.noise": 0.25}),
    ],
)
def test_settings_are_read_as_flwr_run_reads_them(told, changed, tmp_path):
    defaults = {"lr": 0.1, "num-rounds": 3, "name": "a", "is-fast": True, "data.noise": 0.5}
    assert app_in(tmp_path, COMPONENTS + CONFIG).run_config(told) == defaults | changed


def test_settings_may_come_from_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.7\n[data]\nnoise = 0.0\n")
    settings = app_in(tmp_path, COMPONENTS + CONFIG).run_config([str(file)])
    assert (settings["lr"], settings["data.noise"], settings["num-rounds"]) == (0.7, 0.0, 3)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("lrr=0.5", "did you mean lr?"),
        ("data.nois=0.5", "did you mean data.noise?"),
        ("lr", "KEY=VALUE"),
        ("lr=fast", "cannot be read"),
        ("name='b", "cannot be read"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_what_cannot_be_a_setting_is_one_sentence(told, says, tmp_path):
    with pytest.raises(ConfigurationError) as refusal:
        app_in(tmp_path, COMPONENTS + CONFIG).run_config([told])
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_only_an_app_that_takes_overrides_is_configured_by_its_conf(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 0.1\n")  # as apps with Hydra have
    assert not app_in(tmp_path, COMPONENTS + CONFIG).has_conf
    overrides = "[tool.flwr.app.config]\noverrides=''\n"
    assert app_in(tmp_path, COMPONENTS + overrides).has_conf
    (tmp_path / "conf" / "config.yaml").unlink()
    assert not app_in(tmp_path, COMPONENTS + overrides).has_conf


def test_words_that_set_what_the_app_decides_are_refused(tmp_path):
    app, groups = app_in(tmp_path, COMPONENTS + CONFIG), ["fleet", "runtime", "strategy", "client"]
    app.check_words(["fleet=pareto", "fleet.num_nodes=3", "runtime.workers=2", "seed=1"], groups)
    for word in ("strategy=fedbuff", "strategy.buffer_size=3", "+client.momentum=1", "~strategy"):
        with pytest.raises(ConfigurationError, match="this app decides its"):
            app.check_words([word], groups)
    with pytest.raises(ConfigurationError, match="write --run-config 'lr=1'"):
        app.check_words(["lr=1"], groups)


def test_a_setting_named_like_ours_is_told_apart_by_where_it_is_said(tmp_path):
    app = app_in(tmp_path, COMPONENTS + "[tool.flwr.app.config]\nseed = 7\n")
    app.check_words(["seed=1"], [])
    assert app.run_config(["seed=2"]) == {"seed": 2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=1"], ([], ["seed=1"])),
        (["seed=1", "--run-config", "a=1 b=2", "-m"], (["a=1 b=2"], ["seed=1", "-m"])),
        (["--run-config=a=1", "--run-config", "b=2"], (["a=1", "b=2"], [])),
        (["--cfg", "job", "--run-config=a=1", "x=1"], (["a=1"], ["--cfg", "job", "x=1"])),
    ],
)
def test_run_config_may_stand_anywhere_among_words_and_flags(words, expected):
    assert take_run_config(words) == expected


def test_run_config_without_a_value_is_refused():
    with pytest.raises(ConfigurationError, match="expected one argument"):
        take_run_config(["--run-config"])
