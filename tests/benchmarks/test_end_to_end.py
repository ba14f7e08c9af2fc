"""The commands are timed for all the jobs they were asked for, or not at all."""

import pytest

from benchmarks.end_to_end import __main__ as end_to_end


def test_fedagent_runs_the_flower_app_as_it_is():
    assert end_to_end.seconds(end_to_end.fedagent, "linear", 40) > 0


def test_a_command_that_leaves_jobs_undone_is_no_measurement():
    def half(run_config):
        return "Received 20 results and 0 failures"

    with pytest.raises(RuntimeError, match="Not every job"):
        end_to_end.seconds(half, "linear", 40)


def test_ratios_are_those_of_repetitions_side_by_side(monkeypatch):
    taken = {"fedagent": iter([1.0, 2.0, 4.0]), "flower": iter([5.0, 20.0, 8.0])}
    monkeypatch.setattr(end_to_end, "seconds", lambda command, model, jobs: next(taken[command]))
    found = end_to_end.side_by_side({n: n for n in taken}, "linear", 20, repetitions=3)
    assert found == {"fedagent_s": 2.0, "flower_s": 8.0, "ratio": 5.0}
