"""Every configuration that ships is run: a few updates of the real application."""

import json
from pathlib import Path
from sys import float_info

import pytest
import torch
from omegaconf import OmegaConf

from fedagent.config import build_task, choices, compose, instantiate
from fedagent.simulation import run_simulation
from tests.clients.detection.made_up import nuclei

CONF = Path(__file__).parents[1] / "conf"
GROUPS = choices(CONF)
# Only what the option is about; everything else stays as small as debug=on makes it.
EXTRA = {
    "strategy=fedat": ["stopping.max_updates=12"],  # the first of every node only rank it
    "strategy=malenia": ["stopping.max_updates=8"],  # it needs every node
    "strategy=ringleader": ["stopping.max_updates=8"],
    "strategy=hierarchical": ["strategy.send_every=2", "strategy.edge.buffer_size=1"],
    "strategy=halos": ["strategy.send_every=2"],
    **{f"robust={name}": ["strategy=fedbuff"] for name in GROUPS["robust"] if name != "none"},
    "secure=on": ["strategy=fedbuff", "buffer_size=3"],
    "runtime=processes": ["runtime.workers=2"],
    "monitor=mlflow": [
        "monitor.mlflow.tracking_uri=sqlite:///${output_dir}/mlflow.db",
        "monitor.mlflow.artifacts=[]",  # its default store puts them into the working directory
    ],
    "monitor=prometheus": ["monitor.prometheus.port=0"],
    "stopping=seconds": ["stopping.max_seconds=3"],
    "stopping=versions": ["stopping.max_versions=2"],
    **{
        f"mixing={name}": ["strategy=collaborative"]
        for name in GROUPS["mixing"]
        if name not in ("pair", "file")
    },
    "mixing=pair": ["strategy=collaborative", "fleet.num_nodes=2"],
    "mixing=file": [
        "strategy=collaborative",
        f"mixing.path={Path(__file__).parent / 'mixing' / 'path_of_four.csv'}",
    ],
    "fleet=trace": [f"fleet.path={Path(__file__).parent / 'simulation' / 'two_devices.csv'}"],
    "experiment=detection_nuclei": ["app.path=${oc.env:MADE_UP_NUCLEI}", "app.size=48"],
    "experiment=recommendation_stars": ["target=0.8"],  # the stars of four users are easier
    "experiment=language_warm_start": ["pretrain_steps=2"],
    **{
        f"{group}=traffic_signals": [
            "client.batch_size=1",
            "app.training_s=60",
            "app.test_s=120",
            "target=1",
        ]
        for group in ("app", "experiment")
    },
    "experiment=length_of_stay": ["fleet.num_nodes=17"],
    "experiment=two_node_linear": ["fleet.num_nodes=2"],
    "experiment=two_node_logistic": ["fleet.num_nodes=2"],
    "experiment=mission_cnn": ["fleet.num_nodes=2"],
    "experiment=mission_cnn_sync_sgd": ["fleet.num_nodes=2"],
}


@pytest.fixture(scope="module", autouse=True)
def users_data(tmp_path_factory):
    """Make up what a user brings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MADE_UP_NUCLEI", str(nuclei(tmp_path_factory.mktemp("nuclei"))))
        yield


@pytest.mark.parametrize(
    ("group", "choice"),
    # What is tuned is a strategy, which runs as it is, with other rates.
    [(g, c) for g, names in GROUPS.items() for c in names if g != "tuned"],
)
def test_every_shipped_choice_runs(group, choice, tmp_path):
    words = ["debug=on", f"{group}={choice}", *EXTRA.get(f"{group}={choice}", [])]
    overrides = " ".join([*dict.fromkeys(words), f"output_dir={tmp_path}"])
    cfg = compose(overrides, CONF)
    run_simulation(
        "server.app:app",
        "clients.app:app",
        fleet=instantiate(cfg.fleet),
        seed=1,
        runtime=instantiate(cfg.runtime),
        run_config={"overrides": overrides},
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_updates"] >= 2
    assert summary["time_to_target_s"] != 0.0  # which a fresh model would have reached
    # Of right answers; an error and what an agent earns have no such end.
    is_share = summary["metric"]["mode"] == "max" and summary["metric"]["name"] != "return"
    assert 0.0 <= summary["final_value"] <= (1.0 if is_share else float_info.max)
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "plots" / "metric.png").is_file()


@pytest.mark.parametrize("app", GROUPS["app"])
def test_an_application_says_what_its_target_is(app):
    assert "target" in OmegaConf.load(CONF / "app" / f"{app}.yaml")  # null, if there is none


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in ("app", "experiment") for name in GROUPS[group]]
)
def test_a_target_lies_on_the_better_side_of_a_fresh_model(choice):
    data = [word for word in EXTRA.get(choice, []) if word.startswith("app.path=")]
    cfg = compose(" ".join([choice, *data]), CONF)
    torch.manual_seed(cfg.seed)
    task = build_task(cfg)
    fresh = task.evaluate(task.build_model(), torch.device("cpu"))[task.metric.name]
    assert cfg.target is None or task.metric.is_better(cfg.target, fresh)


def test_only_an_application_without_a_fixed_scale_has_no_target():
    without = [app for app in GROUPS["app"] if compose(f"app={app}", CONF).target is None]
    assert without == ["regression"]


@pytest.mark.parametrize("app", GROUPS["app"])
def test_debugging_is_small_whatever_the_application(app):
    cfg = compose(f"app={app} debug=on", CONF)
    assert (cfg.fleet.num_nodes, cfg.cohort, cfg.stopping.max_updates) == (4, 4, 4)
    assert (cfg.runtime.workers, cfg.display, cfg.about.debug) == (0, False, "on")


@pytest.mark.parametrize("app", ["medical", "recommendation", "traffic", "vision"])
def test_a_target_is_that_of_the_data_in_use_and_other_data_has_none(app):
    cfg = compose(f"app={app}", CONF)
    assert cfg.target == cfg.targets[cfg.app.dataset]
    assert compose(f"app={app} app.dataset='/data/our city.v2.npz'", CONF).target is None
    assert compose(f"app={app} app.dataset=other target=0.3", CONF).target == 0.3
