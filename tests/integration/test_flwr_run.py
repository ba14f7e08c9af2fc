"""``flwr run .`` runs the same app on Flower's own runtimes."""

import json
from contextlib import ExitStack

import pytest

from benchmarks.flower_processes import free_port

SMALL = "display=false page=false partition=iid local_steps=4"


def _summary(output, log):
    assert (output / "summary.json").is_file(), log
    return json.loads((output / "summary.json").read_text())


@pytest.mark.slow
def test_flowers_simulation_trains_the_reference_app(flower, tmp_path):
    output = tmp_path / "output"
    with flower.superlink("--simulation"):
        log = flower.run(
            f"{SMALL} fleet.num_nodes=4 concurrency=3 stopping.max_updates=12 "
            f"strategy=fedbuff strategy.buffer_size=3 output_dir={output}",
            "--federation-config",
            "num-supernodes=4 client-resources-num-cpus=1",
        )
    summary = _summary(output, log)
    assert summary["dispatches"]["applied"] == 12, log
    assert summary["num_versions"] == 4
    assert summary["virtual_time_s"] is None, "Flower's runtime has real time only"
    assert (output / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_superlink_with_supernodes_trains_the_reference_app(flower, tmp_path):
    output = tmp_path / "output"
    with ExitStack() as fleet:
        fleet.enter_context(flower.superlink())
        nodes = [
            fleet.enter_context(
                flower.process(
                    "flower-supernode",
                    "--insecure",
                    "--superlink",
                    f"127.0.0.1:{flower.port}",
                    "--port",
                    str(free_port()),
                    "--node-config",
                    f"partition-id={k} num-partitions=2",
                )
            )
            for k in range(2)
        ]
        log = flower.run(
            "tuned=paper display=false partition=iid local_steps=32 "  # far above .5 in any order
            "fleet.num_nodes=2 concurrency=2 stopping.max_updates=8 "
            f"strategy.buffer_size=2 output_dir={output}"
        )
        log += "".join(node.log.read_text()[-3000:] for node in nodes)
    summary = _summary(output, log)
    assert summary["dispatches"]["applied"] == 8, log
    assert summary["num_versions"] == 4
    assert summary["final_value"] > 0.5
