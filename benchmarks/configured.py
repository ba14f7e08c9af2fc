"""One run of a configuration, as ``fedagent run`` does it, in this process."""

import json
import logging
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedagent.config import compose, instantiate
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE
from fedagent.simulation import run_simulation

CONF = Path(__file__).parents[1] / "conf"


def run(overrides: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run what Hydra overrides say; return the summary, and the server's evaluations in order."""
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it warns that evaluation is off
    with tempfile.TemporaryDirectory() as folder:
        spared = ("display=false", "page=false", "baseline=false", "showcase=false")
        words = [*overrides, "runtime=inline", *spared, f"output_dir={folder}"]
        cfg = compose(shlex.join(words), CONF)
        run_simulation(
            "server.app:app",
            "clients.app:app",
            fleet=instantiate(cfg.fleet),
            seed=cfg.seed,
            runtime=instantiate(cfg.runtime),
            run_config={"overrides": shlex.join(words)},
        )
        summary = json.loads((Path(folder) / SUMMARY_FILE).read_text())
        lines = map(json.loads, (Path(folder) / METRICS_FILE).read_text().splitlines())
        return summary, [line for line in lines if line.get("source") == "server"]
