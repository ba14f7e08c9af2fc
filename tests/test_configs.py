"""Every configuration that ships is run: a few updates of the real application."""

import json
from pathlib import Path
from sys import float_info

import pytest

from fedagent.config import choices, compose, instantiate
from fedagent.simulation import run_simulation

CONF = Path(__file__).parents[1] / "conf"
GROUPS = choices(CONF)
SMALL = [
    "fleet.num_nodes=4",
    "concurrency=2",
    "local_steps=1",
    "stopping.max_updates=4",
    "client.batch_size=8",
    "display=false",
]
# Only what the option is about; everything else stays as small as above.
EXTRA = {
    "strategy=malenia": ["concurrency=4", "stopping.max_updates=8"],  # it needs every node
    "strategy=ringleader": ["concurrency=4", "stopping.max_updates=8"],
    "strategy=hierarchical": ["strategy.send_every=2", "strategy.edge.buffer_size=1"],
    "strategy=halos": ["strategy.send_every=2"],
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
    "experiment=two_node_linear": ["fleet.num_nodes=2"],
    "experiment=two_node_logistic": ["fleet.num_nodes=2"],
    "experiment=mission_cnn": ["fleet.num_nodes=2"],
    "experiment=mission_cnn_sync_sgd": ["fleet.num_nodes=2"],
}


def _overrides(group: str, choice: str) -> list[str]:
    overrides = [*SMALL, "runtime=inline", f"{group}={choice}", *EXTRA.get(f"{group}={choice}", [])]
    strategy = compose(" ".join(overrides), CONF).strategy
    if "buffer_size" in strategy:
        overrides.append("strategy.buffer_size=2")
    if "buffer_size" in strategy.get("rule", {}):
        overrides.append("strategy.rule.buffer_size=2")
    return overrides


@pytest.mark.parametrize(
    ("group", "choice"), [(g, c) for g, names in GROUPS.items() for c in names]
)
def test_every_shipped_choice_runs(group, choice, tmp_path):
    overrides = " ".join([*_overrides(group, choice), f"output_dir={tmp_path}"])
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
    is_share = summary["metric"]["mode"] == "max"  # of right answers; an error has no upper end
    assert 0.0 <= summary["final_value"] <= (1.0 if is_share else float_info.max)
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "plots" / "metric.png").is_file()
