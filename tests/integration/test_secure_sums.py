"""A real SuperLink whose proxy sees sums only."""

import json
from contextlib import ExitStack

import pytest

from benchmarks.flower_processes import free_port

NODES = 3


@pytest.mark.slow
def test_devices_behind_a_superlink_train_a_model_of_sums(flower, tmp_path):
    output = tmp_path / "output"
    with ExitStack() as fleet:
        fleet.enter_context(flower.superlink())
        nodes = [
            fleet.enter_context(
                flower.process(
                    "fedagent",
                    "node",
                    "--insecure",
                    f"--superlink=127.0.0.1:{flower.port}",
                    f"--port={free_port()}",
                    f"--node-config=partition-id={k} num-partitions={NODES}",
                )
            )
            for k in range(NODES)
        ]
        log = flower.run(
            "strategy=fedbuff secure=on buffer_size=3 tuned=paper display=false page=false "
            f"partition=iid local_steps=32 fleet.num_nodes={NODES} concurrency={NODES} "
            f"cohort=3 baseline=false showcase=false stopping.max_updates=6 output_dir={output}"
        )
        log += "".join(node.log.read_text()[-3000:] for node in nodes)
    assert (output / "summary.json").is_file(), log
    summary = json.loads((output / "summary.json").read_text())
    assert summary["num_versions"] == 2, log
    assert summary["dispatches"]["applied"] == 6
    assert summary["unmasking"] == {"applied": 18}
    assert (summary["lost"], summary["buffered"]) == ({}, 0)
    assert summary["final_value"] > 0.4
