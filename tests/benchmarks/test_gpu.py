"""What is checked and measured on a GPU runs on the CPU too, and notices what is wrong."""

import json

import pytest
import torch

from benchmarks.gpu import __main__ as gpu


def test_all_checks_and_figures_are_there_on_a_cpu(capsys):
    gpu.main(["--quick", "--device", "cpu"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["failed"] == []
    checks = found["distances"]["linear"] | found["distances"]["buffer"]
    assert set(checks) == set(gpu.TOLERANCES)
    assert checks["device"] == checks["workers"] == 0.0, "the same device, the same bytes"
    assert checks["bfloat16"] > checks["vectorised"], "another precision, other numbers"
    ways = {"bare", "one_by_one", "two_workers", "vectorised_4"}
    assert set(found["clients_per_s"]["linear"]) == ways
    assert min(found["clients_per_s"]["linear"].values()) > 0
    assert found["aggregation_gb_per_s"] > 0


def test_a_check_that_fails_is_named_and_ends_with_an_error(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "check", lambda *_: {"device": 0.5, "workers": float("nan")})
    monkeypatch.setattr(gpu, "measure", lambda *_: {})
    with pytest.raises(SystemExit, match="1"):
        gpu.main(["--quick", "--device", "cpu"])
    captured = capsys.readouterr()
    failed = json.loads(captured.out.splitlines()[-1])["failed"]
    assert [line.split(" is ")[0] for line in failed] == ["linear: device", "linear: workers"]
    assert "linear: device is 0.5, more than 0.01" in captured.err


def test_distances_are_shares_of_the_way():
    start, one, other = torch.zeros(2), torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])
    assert gpu.distance(one, other, start) == pytest.approx(0.2)
