"""What is told at the end of any app's simulation."""

import json
from collections import Counter

from fedagent.report.simulated import SIMULATION_FILE, tell
from fedagent.statistics import Statistics
from fedagent.update import Outcome


def test_the_end_tells_time_updates_outcomes_and_traffic(tmp_path, capsys):
    outcomes = Counter({(Outcome.APPLIED, ""): 1200, (Outcome.FAILED, "error-5"): 3})
    statistics = Statistics(
        num_updates=1200,
        now_s=90.0,
        is_virtual=True,
        concurrency=4,
        at_work_max=6,
        busy_s=180.0,
        outcomes=outcomes,
        bytes_down=4_100_000,
        bytes_up=2_000,
    )
    tell(statistics, tmp_path / "new")
    line, where = capsys.readouterr().out.splitlines()
    assert line == (
        "ended after 90 virtual s · 1,200 updates · 1,200 applied, 3 failed(error-5) · at most 4 "
        "jobs at once · at most 6 nodes at work · 50% of their time at work · 4.1 MB down, 2 kB up"
    )
    path = tmp_path / "new" / SIMULATION_FILE
    assert where == f"Files: {path}"
    told = json.loads(path.read_text())
    assert told["outcomes"] == {"applied": 1200, "failed(error-5)": 3}
    assert (told["concurrency"], told["at_work_max"]) == (4, 6)
    assert (told["virtual_s"], told["utilisation"]) == (90.0, 0.5)


def test_a_run_without_a_job_says_so(tmp_path, capsys):
    tell(Statistics(is_virtual=True), tmp_path)
    assert "0 updates · no jobs" in capsys.readouterr().out
