"""The reference ServerApp's central evaluation: the test split, or everybody's validation."""

from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord
from omegaconf import OmegaConf

from fedagent.config import build_task, compose
from fedagent.errors import ConfigurationError
from server.app import evaluate_centrally, initial_arrays, run_folder

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
