"""The control plane is measured in processes of its own."""

from benchmarks.control_plane.__main__ import print_table
from benchmarks.control_plane.measure import PARTS, measure_apart


def test_the_control_plane_is_measured_in_processes_of_its_own(capsys):
    readings = [measure_apart(100, tasks=30)]
    print_table(readings)
    for part in PARTS:
        assert readings[0][part]["tasks"] == (300 if part == "pure" else 30)
        assert readings[0][part]["tasks_per_s"] > 0
        assert readings[0][part]["peak_mb"] >= readings[0]["imports_mb"]
    assert "| 100 | 10 |" in capsys.readouterr().out
