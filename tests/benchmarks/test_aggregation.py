"""Aggregation is measured for every rule, with what it was measured on."""

import json
import sys

import pytest

from benchmarks.aggregation.__main__ import main
from benchmarks.aggregation.bandwidth import RULES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_aggregation_is_measured_for_every_rule(capsys):
    main(["--sizes", "80000", "--repetitions", "1"])
    *table, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert set(report["bandwidth"]["80000"]) >= {"axpy", "copy", "admission", "version"}
    for rule in RULES:
        assert report["bandwidth"]["80000"][f"rule {rule}"]["gb_per_s"] > 0
        assert any(line.startswith(f"| rule {rule} |") for line in table)
    assert report["replies"]["80000"]["FedAsync"]["versions"] >= 5
    assert {"torch", "flwr", "numpy", "cpus", "threads", "load"} <= set(report)
