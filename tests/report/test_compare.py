import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from fedagent.report import Row, compare, find_runs, render, to_json
from fedagent.report.table import render_in_two
from fedagent.stopping import EndKind, RunEnd

from .conftest import Record


def text(rows: list[Row], width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(rows))
    return capture.get()


def test_runs_that_differ_in_the_seed_only_are_one_row(record: Record, tmp_path: Path) -> None:
    for seed, step_s in enumerate((10.0, 20.0, 30.0)):
        record(f"{seed}", [0.1, 0.95], step_s=step_s, seed=seed)

    (row,) = compare(find_runs([tmp_path]))

    assert len(row.runs) == 3
    assert row.time_to_target_s is not None
    assert (row.time_to_target_s.mean, row.time_to_target_s.std) == (20.0, 10.0)
    assert row.num_bytes is not None
    assert (row.num_bytes.mean, row.num_bytes.std) == (2800, 0)


def test_one_seed_has_no_deviation(record: Record, tmp_path: Path) -> None:
    record("a", [0.1, 0.95])

    (row,) = compare(find_runs([tmp_path]))

    assert row.time_to_target_s is not None
    assert row.time_to_target_s.std is None
    assert "±" not in text([row])


def test_rows_are_named_by_what_differs(record: Record, tmp_path: Path) -> None:
    record("1", [0.1], strategy="fedavg", fleet="pareto", nodes=10)
    record("2", [0.1], strategy="fedbuff", fleet="uniform", nodes=10)
    record("3", [0.1], strategy="fedbuff", fleet="uniform", nodes=10, buffer_size=4)

    assert [row.name for row in compare(find_runs([tmp_path]))] == [
        "strategy=fedavg fleet=pareto",
        "strategy=fedbuff fleet=uniform",
        "strategy=fedbuff fleet=uniform buffer_size=4",
    ]


def test_nested_settings_group_and_name(record: Record, tmp_path: Path) -> None:
    record("1", [0.1], rule={"name": "fedbuff", "k": 2}, seed=0)
    record("2", [0.1], rule={"k": 2, "name": "fedbuff"}, seed=1)
    record("3", [0.1], rule={"k": 3, "name": "fedbuff"}, seed=0)

    assert [len(row.runs) for row in compare(find_runs([tmp_path]))] == [2, 1]


def test_speed_up_is_against_the_first_row_of_the_same_fleet(
    record: Record, tmp_path: Path
) -> None:
    record("1", [0.1, 0.95], step_s=40.0, strategy="fedavg", fleet="pareto")
    record("2", [0.1, 0.95], step_s=10.0, strategy="fedbuff", fleet="pareto")
    record("3", [0.1, 0.95], step_s=3.0, strategy="fedavg", fleet="uniform")
    record("4", [0.1, 0.95], step_s=2.0, strategy="fedbuff", fleet="uniform")
    record("5", [0.1, 0.95], step_s=60.0, strategy="fedbuff", fleet="uniform", links="phones")

    rows = compare(find_runs([tmp_path]))

    assert [row.speed_up for row in rows] == [1.0, 4.0, 1.0, 1.5, 1.0]
    assert "4.00x" in text(rows)
    assert "first row with the same app, fleet, links, partition and target" in text(rows)


@pytest.mark.parametrize(
    "other", [{"partition": "dirichlet"}, {"app": "text"}, {"target": 0.2}, {"is_virtual": False}]
)
def test_speed_up_is_not_taken_across_what_cannot_be_compared(
    record: Record, tmp_path: Path, other: dict[str, object]
) -> None:
    record("1", [0.1, 0.95], step_s=40.0)
    record("2", [0.1, 0.95], step_s=10.0, **other)

    assert [row.speed_up for row in compare(find_runs([tmp_path]))] == [1.0, 1.0]


def test_unreached_target_counts_only_the_seeds_that_reached_it(
    record: Record, tmp_path: Path
) -> None:
    record("1", [0.1, 0.95], step_s=60.0, seed=0)
    record("2", [0.1, 0.95], step_s=180.0, seed=1)
    record("3", [0.1, 0.2], step_s=1.0, seed=2)

    (row,) = compare(find_runs([tmp_path]))

    assert row.num_reached == 2
    assert row.time_to_target_s is not None
    assert row.time_to_target_s.mean == 120.0
    assert "2/3" in text([row])
    assert "2.0* min" in text([row])
    assert "* only over the seeds that reached the target" in text([row])


def test_row_that_never_reached_the_target_has_no_time_and_no_speed_up(
    record: Record, tmp_path: Path
) -> None:
    record("1", [0.1, 0.2], strategy="fedavg")
    record("2", [0.1, 0.95], strategy="fedbuff")

    never, reached = compare(find_runs([tmp_path]))

    assert never.time_to_target_s is None
    assert (never.speed_up, reached.speed_up) == (None, None)
    assert "0/1" in text([never])


def test_diverged_seed_is_marked(record: Record, tmp_path: Path) -> None:
    record("1", [0.1, 0.5], target=None, seed=0)
    record("2", [0.1, math.nan], target=None, seed=1)

    (row,) = compare(find_runs([tmp_path]))

    assert row.final_value is not None
    assert (row.final_value.mean, row.final_value.count) == (0.5, 1)
    assert "0.5*" in text([row])
    assert "speed-up" not in text([row])


def test_repeated_seed_is_said(
    record: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record("1", [0.1], seed=3)
    record("2", [0.1], seed=3)

    (row,) = compare(find_runs([tmp_path]))

    assert len(row.runs) == 2
    assert f"{tmp_path / '2'} repeats seed 3 of {tmp_path / '1'}" in caplog.text


def test_largest_staleness_of_all_seeds_is_shown(record: Record, tmp_path: Path) -> None:
    record("1", [0.1, 0.2], seed=0)
    record("2", [0.1], seed=1)

    (row,) = compare(find_runs([tmp_path]))

    assert row.staleness_max == 3
    assert row.staleness_mean is not None
    assert row.staleness_mean.mean == 0.75


def test_deviation_and_mean_have_the_same_decimals_and_unit(record: Record, tmp_path: Path) -> None:
    record("1", [0.1, 0.95], step_s=5400.0, seed=0)
    record("2", [0.1, 0.95], step_s=12600.0, seed=1)

    shown = text(compare(find_runs([tmp_path])))

    assert "2.5 h" in shown
    assert "±1.4 h" in shown


def test_eighty_columns_cut_no_number(record: Record, tmp_path: Path) -> None:
    for seed in range(2):
        record(f"a{seed}", [0.1, 0.95], step_s=600.0 + seed, seed=seed, strategy="fedasync")
        record(f"b{seed}", [0.1, 0.95], step_s=700.0 - seed, seed=seed, strategy="fedcompass")
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render_in_two(compare(find_runs([tmp_path]))))

    assert "…" not in capture.get()
    assert all(word in capture.get() for word in ("strategy=fedcompass", "11.658 min", "2.8 kB"))


def test_json_says_what_the_table_says(record: Record, tmp_path: Path) -> None:
    record("1", [0.1, 0.95], seed=0)
    record("2", [0.1, 0.2], seed=1)

    (row,) = json.loads(to_json(compare(find_runs([tmp_path]))))

    assert row["time_to_target_s"] == {"mean": 10.0, "std": None, "count": 1}
    assert (row["num_seeds"], row["num_reached"], row["name"]) == (2, 1, "fedbuff")
    assert row["runs"][1] == {
        "directory": str(tmp_path / "2"),
        "seed": 1,
        "end": {"kind": "completed", "detail": "scripted"},
    }
    assert row["unfinished"] == []
    assert row["experiment"]["fleet"] == "pareto"


@pytest.mark.parametrize("kind", ["stalled", "stopped", "failed"])
def test_a_run_that_did_not_complete_is_named_and_in_no_mean(
    record: Record, tmp_path: Path, kind: EndKind
) -> None:
    record("1", [0.1, 0.95], seed=0)
    record("2", [0.1, 0.2], seed=1, end=RunEnd(kind, "halfway"))

    (row,) = rows = compare(find_runs([tmp_path]))

    assert row.final_value is not None
    assert (row.final_value.mean, row.final_value.count) == (0.95, 1)
    assert [run.directory.name for run in row.unfinished] == ["2"]
    assert f"(1 {kind})" in text(rows)
    (plain,) = json.loads(to_json(rows))
    assert plain["num_seeds"] == 1
    assert plain["unfinished"][0]["end"] == {"kind": kind, "detail": "halfway"}


def test_a_row_without_a_completed_run_has_no_numbers(record: Record, tmp_path: Path) -> None:
    record("1", [0.1, 0.95], end=RunEnd("stalled", "nobody came"))

    (row,) = rows = compare(find_runs([tmp_path]))

    assert (row.runs, row.final_value, row.num_updates, row.staleness_max) == ((), None, None, None)
    assert row.drawn == row.unfinished
    assert "(1 stalled)" in text(rows)
