"""What codecs save is measured, and printed as JSON on the last line."""

import json

from benchmarks.communication.__main__ import main
from benchmarks.communication.bandwidth import CODECS
from benchmarks.communication.simulated import QUICK


def test_bandwidth_and_bytes_are_measured(capsys):
    only = ["--only", "bandwidth,simulated", "--sizes", "100000"]
    main(["--quick", *only, "--model", "linear", "--updates", "12"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["bandwidth"]["100000"]) == set(CODECS)
    assert report["bandwidth"]["100000"]["int8"]["bytes_ratio"] > 3.9
    assert set(report["simulated"]) == set(QUICK)
    assert report["bytes_ratio"] > 16
    assert {"accuracy_loss", "time_ratio", "deployment_ratio"} <= report.keys()
