"""What a page reads of a run, whatever became of it."""

import json
import math

import pytest

from fedagent.errors import ConfigurationError
from fedagent.report.page.data import NO_END, read
from fedagent.report.page.write import runs_in


def edit(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_a_finished_run_tells_its_curve_against_every_axis_and_its_jobs(made_up):
    run = read(made_up("run", num_jobs=100, every=10, buffer_size=5), with_jobs=True)
    assert run.is_over
    assert not run.problems
    assert run.curve.x["updates"].tolist() == [10.0 * n for n in range(1, len(run.curve) + 1)]
    assert run.curve.x["versions"].tolist() == [2.0 * n for n in range(1, len(run.curve) + 1)]
    assert set(run.versions.y.tolist()) == {5.0}
    assert (len(run.jobs), run.record.target) == (100, 0.8)
    assert set(run.parts) == {"accuracy-class-0", "accuracy-class-1"}
    assert all((x[1:] >= x[:-1]).all() for x in run.curve.x.values())


def test_a_run_that_was_killed_in_the_middle_of_a_line_is_told_as_far_as_it_is_written(made_up):
    folder = made_up("run", is_over=False, num_jobs=200)
    whole = len(read(folder).versions)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-30])
    run = read(folder, with_jobs=True)
    assert run.record.end is NO_END
    assert not run.is_over
    assert len(run.versions) + len(run.curve) >= whole - 1
    assert any("1 line that cannot be read" in said for said in run.problems)
    assert any("summary.json is missing" in said for said in run.problems)
    assert run.record.num_updates > 0


def test_a_target_that_a_killed_run_has_reached_is_found(made_up):
    whole = read(made_up("whole", num_jobs=400))
    killed = read(made_up("killed", num_jobs=400, is_over=False))
    assert whole.record.time_to_target_s is not None
    assert killed.record.time_to_target_s == whole.record.time_to_target_s
    assert killed.record.updates_to_target == whole.record.updates_to_target


def test_a_run_of_an_earlier_version_needs_no_run_json_and_no_new_fields(made_up):
    folder = made_up("run")
    (folder / "run.json").unlink()
    lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    old = ("node_id", "local_steps", "duration_s", "bytes_down", "bytes_up")
    told = [json.dumps({key: line[key] for key in old}) for line in lines]
    (folder / "jobs.jsonl").write_text("\n".join(told))
    edit(folder / "summary.json", lambda said: said.pop("slots_s"))
    run = read(folder, with_jobs=True)
    assert run.jobs[0].ended_s is None
    assert run.record.is_virtual
    assert any("run.json is missing" in said for said in run.problems)


def test_values_that_are_no_numbers_are_gaps(made_up):
    folder = made_up("run", num_jobs=60)
    lines = (
        (folder / "metrics.jsonl")
        .read_text()
        .replace('"accuracy": 0.', '"accuracy": null, "x": 0.')
    )
    (folder / "metrics.jsonl").write_text(lines)
    run = read(folder)
    assert all(math.isnan(y) for y in run.curve.y)
    assert run.record.final_value is None


@pytest.mark.parametrize("text", ["{", "[]", '{"metric": {"name": "a", "mode": "up"}}'])
def test_a_folder_that_does_not_say_what_was_run_is_named(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"does not say what was run.*summary\.json"):
        read(tmp_path)


def test_of_several_runs_a_broken_one_is_left_out_with_a_warning(made_up, tmp_path, caplog):
    made_up("all/good")
    made_up("all/bad")
    (tmp_path / "all/bad/summary.json").write_text("{")
    (tmp_path / "all/bad/run.json").write_text("{")
    assert [run.record.directory.name for run in runs_in([tmp_path / "all"])] == ["good"]
    with pytest.raises(ConfigurationError, match="holds no run"):
        runs_in([_empty(tmp_path)])
    with pytest.raises(ConfigurationError, match="is not a folder"):
        runs_in([tmp_path / "nothing"])


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"
