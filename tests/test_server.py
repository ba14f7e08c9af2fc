"""The reference ServerApp's central evaluation: the test split, or everybody's validation."""

import logging
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from flwr.app import ArrayRecord
from omegaconf import OmegaConf

from fedagent.client import TrustedTraining
from fedagent.config import build_task, compose, instantiate
from fedagent.errors import ConfigurationError
from fedagent.simulation import run_simulation
from fedagent.stopping import Baseline
from server.app import baseline, evaluate_centrally, initial_arrays, protect, run_folder, show

CONF = Path(__file__).parents[1] / "conf"
REGRESSION = "app=regression fleet.num_nodes=3 device=cpu"


def evaluated(overrides):
    cfg = compose(f"{REGRESSION} {overrides}", CONF)
    task = build_task(cfg)
    arrays = ArrayRecord({"weight": torch.tensor([[0.5, -0.5]], dtype=torch.float64)})
    return task, dict(evaluate_centrally(cfg, task)(3, arrays))


def test_versions_are_evaluated_on_the_test_split_unless_validation_is_asked_for():
    task, found = evaluated("")
    model = task.build_model()
    model.load_state_dict({"weight": torch.tensor([[0.5, -0.5]], dtype=torch.float64)})
    assert found == task.evaluate(model, torch.device("cpu"))
    losses = [task.evaluate(model, torch.device("cpu"), node)["loss"] for node in range(3)]
    _, on_validation = evaluated("evaluate_on=validation")
    assert on_validation["loss"] == pytest.approx(sum(losses) / 3)
    assert on_validation["loss-worst"] == max(losses)
    assert on_validation["num-examples"] == 96


def test_a_run_without_a_folder_gets_one_of_its_own_with_its_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose(REGRESSION, CONF)
    folders = [run_folder(cfg) for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.parents[1] == tmp_path / "outputs" for folder in folders)
    saved = OmegaConf.load(folders[0] / ".hydra" / "config.yaml")
    assert saved.fleet.num_nodes == 3


def test_a_folder_that_holds_a_run_is_refused_unless_it_may_be_lost(tmp_path):
    (tmp_path / "summary.json").touch()
    cfg = compose(f"{REGRESSION} output_dir={tmp_path}", CONF)
    with pytest.raises(ConfigurationError, match="holds a run already"):
        run_folder(cfg)
    cfg.overwrite = True
    assert run_folder(cfg) == tmp_path


def test_a_split_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigurationError, match="test, validation"):
        evaluated("evaluate_on=train")


def test_a_run_knows_what_there_is_to_beat_on_the_same_data():
    for words in ("", "app.difference=2.0"):
        cfg = compose(f"{REGRESSION} {words}", CONF)
        task = build_task(cfg)
        expected = Baseline("untrained model", task.baseline()["loss"])
        state = torch.get_rng_state()
        assert baseline(cfg, task) == expected
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("words", ["baseline=false", "evaluate_on=validation"])
def test_nothing_is_computed_where_it_is_not_wanted_or_not_comparable(words):
    cfg = compose(f"{REGRESSION} {words}", CONF)
    task = build_task(cfg)
    with patch.object(type(task), "baseline", side_effect=AssertionError("nobody asked")):
        assert baseline(cfg, task) is None


@pytest.mark.parametrize("error", [ConfigurationError("no forest"), ZeroDivisionError("no forest")])
def test_a_baseline_that_fails_is_a_warning_with_its_reason(error, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    caplog.set_level(logging.WARNING, "flwr")
    cfg = compose(REGRESSION, CONF)
    task = build_task(cfg)
    with patch.object(type(task), "baseline", side_effect=error):
        assert baseline(cfg, task) is None
    assert "goes on without a baseline (untrained model)" in caplog.text
    assert "no forest" in caplog.text


def test_what_is_shown_is_the_model_of_the_arrays_beside_what_only_nodes_know():
    cfg = compose(REGRESSION, CONF)
    task = build_task(cfg)
    weight = torch.tensor([[0.5, -0.5]], dtype=torch.float64)
    seen = []
    with patch.object(type(task), "showcase", lambda _, model, device: seen.append(model)):
        show(cfg, task)(ArrayRecord({"weight": weight}))
    assert torch.equal(seen[0].weight.detach(), weight)


def test_a_run_says_what_of_the_data_is_left_out(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    caplog.set_level(logging.WARNING, "flwr")
    overrides = f"{REGRESSION} cohort=3 local_steps=1 stopping.max_updates=3 output_dir={tmp_path}"
    with patch("clients.regression.RegressionTask.remarks", lambda _: ["272 users are left out"]):
        run_simulation(
            "server.app:app",
            "clients.app:app",
            num_supernodes=3,
            run_config={"overrides": f"{overrides} display=false page=false"},
        )
    said = [r for r in caplog.records if r.getMessage() == "272 users are left out"]
    assert len({id(record) for record in said}) == 1


def test_a_warm_start_sees_the_public_batches_of_a_task_and_no_others(monkeypatch):
    cfg = compose(f"{REGRESSION} pretrain_steps=3 learning_rate=0.1", CONF)
    task = build_task(cfg)
    fresh = initial_arrays(compose(REGRESSION, CONF), task)["weight"].numpy()
    pooled = initial_arrays(cfg, task)["weight"].numpy()
    first = next(task.batches(0, 4))

    def public_batches(batch_size):
        while True:
            yield first

    monkeypatch.setattr(task, "public_batches", public_batches, raising=False)
    monkeypatch.setattr(task, "batches", None, raising=False)
    public = initial_arrays(cfg, task)["weight"].numpy()
    assert (fresh != public).any()
    assert (pooled != public).any()


def test_filters_get_what_they_trust_and_rounds_that_cannot_be_protected_are_refused():
    cfg = compose(f"{REGRESSION} strategy=fedasync filters=[zeno,norm_bound]", CONF)
    strategy, task = instantiate(cfg.strategy), build_task(cfg)
    protect(cfg, task, strategy)
    assert isinstance(strategy.options.robust.gate.filters[0].step, TrustedTraining)
    rounds = instantiate(compose("strategy=fedavg", CONF).strategy)
    protect(compose("strategy=fedavg", CONF), task, rounds)
    for words in ("robust=median", "filters=zeno", "robust.max_influence=0.1"):
        with pytest.raises(ConfigurationError, match=words.split("=")[0]):
            protect(compose(f"strategy=fedavg {words}", CONF), task, rounds)
