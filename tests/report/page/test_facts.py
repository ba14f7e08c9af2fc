"""Bars, groups and shares: what is drawn is what was recorded."""

from dataclasses import replace

import numpy as np
import pytest

from fedagent.report.compare import compare
from fedagent.report.jobs import Job
from fedagent.report.page import sections, timeline
from fedagent.report.page.curves import curves_of, smoothed, thinned
from fedagent.report.page.data import AXES, read
from fedagent.report.page.facts import losses, shares, slot_time, staleness_by_group
from fedagent.report.page.timeline import KINDS, kind_of, nodes_of, timeline_of


def job(node, duration_s=1.0, ended_s=1.0, **known):
    return Job(str(node), 1, duration_s, 0, 0, ended_s=ended_s, **known)


def test_rows_go_from_slow_to_fast_and_a_third_is_each_group():
    nodes = nodes_of(
        [job(node, duration_s=node) for node in (3, 1, 2)] + [job(9, outcome="failed")]
    )
    assert list(nodes.ids) == ["1", "2", "3", "9"]
    assert list(nodes.group) == ["fast", "middle", "slow", "unknown"]
    drawn = timeline_of(nodes)
    assert [nodes.ids[place] for place in drawn.nodes] == ["9", "3", "2", "1"]
    assert drawn.right.tolist() == [1.0] * 4
    assert not drawn.is_sampled


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({"staleness": 0}, "applied, fresh"),
        ({"staleness": 3}, "staleness 1 to 3"),
        ({"staleness": 4}, "4 to 15"),
        ({"staleness": 16}, "16 and more"),
        ({"outcome": "rejected"}, "rejected"),
        ({"outcome": "expired"}, "expired"),
    ],
)
def test_a_bar_has_the_colour_of_its_outcome_and_staleness(known, kind):
    assert KINDS[kind_of(job(1, **known))] == kind


def test_beyond_the_limits_whole_rows_are_left_out_and_it_is_said(monkeypatch):
    monkeypatch.setattr(timeline, "MOST_ROWS", 10)
    monkeypatch.setattr(timeline, "MOST_BARS", 40)
    jobs = [job(n, duration_s=1 + n, ended_s=t) for n in range(30) for t in range(8)]
    nodes = nodes_of(jobs)
    drawn = timeline_of(nodes)
    assert drawn.is_sampled
    assert (drawn.num_rows, drawn.num_bars) == (30, 240)
    assert len(drawn.jobs) <= 40
    per_row = np.bincount(drawn.row)
    assert set(per_row.tolist()) == {8}, "a job that is left out would look like idle time"
    assert {nodes.group[place] for place in drawn.nodes} == {"fast", "middle", "slow"}


def test_the_parts_of_the_slots_time_are_all_of_it(made_up):
    found = slot_time(read(made_up("run")))
    assert found.useful + found.discounted + found.wasted + found.idle == pytest.approx(1.0)
    assert found.idle == pytest.approx(1 - 1 / 1.2)


def test_shares_are_of_examples_and_of_the_rules_own_weights():
    jobs = [
        job(1, staleness=0, num_examples=30.0, discount=1.0),
        job(1, staleness=3, num_examples=30.0, discount=0.5),
        job(2, staleness=3, num_examples=10.0, discount=0.5),
        job(3, outcome="failed"),
    ]
    nodes = nodes_of(jobs)
    found = shares(nodes)
    assert [nodes.ids[place] for place in found.nodes] == ["1", "2"]
    assert found.data.tolist() == [0.75, 0.25]
    assert found.influence.tolist() == [0.75, 0.25]
    assert set(staleness_by_group(nodes)) == {nodes.group[place] for place in (0, 1)}
    assert shares(nodes_of([job(1)])) is None


def test_who_the_model_owes_most_to_is_named_where_the_summary_tells(made_up):
    run = read(made_up("run"))
    told = replace(run, summary={**run.summary, "most_influential_nodes": {"1007": 0.125}})
    assert "<td>1007</td><td>12.5%</td>" in sections.influence(told)
    assert sections.influence(replace(run, summary={})) == ""


@pytest.mark.parametrize("has_versions", [True, False])
def test_the_cards_count_to_the_end_of_a_run_and_not_to_its_last_version(made_up, has_versions):
    run = read(made_up("run"))
    if not has_versions:
        run = replace(run, versions=type(run.versions)({}, np.zeros(0)))
    summary = {**run.summary, "num_versions": 4321, "time_s": 7200.0, "wall_time_s": 30.0}
    told = sections.cards(replace(run, summary=summary))
    for value, what in (("4,321", "versions"), ("2 h", "virtual time"), ("30 s", "on the wall")):
        assert f"<b>{value}</b><span>{what}</span>" in told


def test_the_cards_of_a_run_that_goes_on_count_to_its_newest_version(made_up):
    run = read(made_up("run", is_over=False))
    num_versions = int(run.versions.x["versions"][-1])
    assert f"<b>{num_versions:,}</b><span>versions</span>" in sections.cards(run)


def test_losses_are_the_summarys_or_counted_as_long_as_there_is_none(made_up):
    whole = losses(read(made_up("whole"), with_jobs=True))
    going_on = losses(read(made_up("going_on", is_over=False), with_jobs=True))
    assert whole == going_on
    assert "applied" not in whole


def test_seeds_are_one_curve_with_a_band_and_long_curves_are_thinned(made_up):
    runs = [read(made_up(str(seed), num_jobs=3000, every=1, seed=seed)) for seed in (0, 1)]
    rows = compare(run.record for run in runs)
    (curves,) = curves_of(rows, {run.record.directory: run for run in runs})
    assert set(curves) == set(AXES)
    for curve in curves.values():
        assert len(curve.x) <= 600
        assert (curve.low <= curve.raw).all()
        assert (curve.raw <= curve.high).all()
        assert curve.reached is not None


def test_smoothing_keeps_gaps_and_means():
    values = np.array([1.0] * 20 + [np.nan] + [3.0] * 20)
    smooth = smoothed(values)
    assert np.isnan(smooth[20])
    assert np.isfinite(np.delete(smooth, 20)).all()
    assert (smooth[0], smooth[-1]) == (1.0, 3.0)
    assert smoothed(np.array([1.0, 5.0])).tolist() == [1.0, 5.0]


def test_thinning_keeps_both_ends():
    assert thinned(5, 10).tolist() == [0, 1, 2, 3, 4]
    kept = thinned(1001, 11)
    assert kept.tolist() == list(range(0, 1001, 100))
