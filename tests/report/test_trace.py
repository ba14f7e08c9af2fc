"""A run's jobs as Perfetto reads them."""

import json

import pytest

from benchmarks.page.made_up import write_run
from fedagent.errors import ConfigurationError
from fedagent.report.command import write_trace


def test_every_job_is_a_slice_on_its_nodes_row_and_every_version_an_instant(tmp_path):
    write_run(tmp_path / "run", num_jobs=60, num_nodes=5, buffer_size=10)
    said = write_trace([tmp_path / "run"], tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert said.startswith("60 jobs")
    assert len(slices) == 60
    assert all(rows[event["tid"]].startswith("node 10") for event in slices)
    jobs = [json.loads(line) for line in (tmp_path / "run/jobs.jsonl").read_text().splitlines()]
    ends = sorted(round(1e6 * job["ended_s"]) for job in jobs)
    assert sorted(round(event["ts"] + event["dur"]) for event in slices) == pytest.approx(ends)
    versions = [event["name"] for event in events if event["ph"] == "i"]
    assert versions[0] == "version 1"
    assert rows[0] == "versions"
    assert {e["cat"] for e in slices} <= {"applied", "failed", "rejected", "expired"}


def test_several_runs_or_one_without_jobs_are_refused(tmp_path):
    write_run(tmp_path / "a")
    (write_run(tmp_path / "b") / "jobs.jsonl").unlink()
    with pytest.raises(ConfigurationError, match="takes one run, and there are 2"):
        write_trace([tmp_path], tmp_path / "trace.json")
    with pytest.raises(ConfigurationError, match="tells of no job"):
        write_trace([tmp_path / "b"], tmp_path / "trace.json")
