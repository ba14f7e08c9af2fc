"""What the reliability benchmark prints, and how it counts."""

import json
import sys

import pytest

from benchmarks.reliability import __main__ as benchmark
from benchmarks.reliability import cost, fleet

ASKED = {"lost", "doubled", "bit_exact", "journal_cost", "recovery_s", "memory_mb_per_10k"}


def test_the_quick_one_prints_what_is_asked_as_json_on_its_last_line(monkeypatch, capsys):
    class Chaos:
        def summary(self):
            return {"lost": 0, "doubled": 0, "bit_exact": True, "recovery_s": 0.1}

    large, memory = cost.large_checkpoint, cost.memory_mb_per_10k
    monkeypatch.setattr(benchmark, "chaos", lambda **options: Chaos())
    monkeypatch.setattr(cost, "simulated", lambda model, updates: lambda saving: updates)
    real = cost.real
    monkeypatch.setattr(cost, "real", lambda size, n, callbacks=(): real(100, 80, callbacks))
    monkeypatch.setattr(cost, "large_checkpoint", lambda size, n: large(size // 1000, n))
    monkeypatch.setattr(cost, "memory_mb_per_10k", lambda _: memory(80))
    monkeypatch.setattr(sys, "argv", ["reliability", "--quick"])
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() >= ASKED
    assert found["checkpoint_ratio"] > 0
    assert not any(name.startswith(("deployed", "failures")) for name in found), "these take long"


def test_the_cost_is_the_share_of_updates_per_second_that_is_lost(monkeypatch):
    rates = iter([(9.0, 9.0), (1.0, 1.0), (100.0, 50.0), (90.0, 40.0), (80.0, 50.0), (60.0, 50.0)])
    monkeypatch.setattr(cost, "_rates", lambda run, saving: next(rates))
    found = cost.side_by_side(lambda saving: 1, 2, "updates")
    assert found["cost"] == pytest.approx((0.1 + 0.25) / 2)
    assert found["cost_cpu"] == pytest.approx((0.2 + 0.0) / 2)


def test_memory_that_grows_once_and_then_no_more_has_no_slope():
    resident = cost.Resident(1)
    resident.seen = [(n, 100.0 + min(n, 25)) for n in range(100)]
    assert resident.slope_mb_per_10k() == pytest.approx(0.0, abs=1e-6)
    resident.seen = [(n, n / 1000) for n in range(0, 10_000, 100)]
    assert resident.slope_mb_per_10k() == pytest.approx(10.0)


def test_a_node_is_idle_from_one_delivery_to_its_next():
    def line(node, now_s, outcome="applied"):
        return {"node": node, "now_s": now_s, "outcome": outcome}

    lines = [line(1, 0.0), line(2, 1.0), line(1, 5.0, "failed"), line(1, 9.0), line(2, 4.0)]
    assert fleet.longest_idle_s(lines) == 9.0
