"""Mutants are made, drawn, planted and judged as the tool says."""

import subprocess
import sys
from pathlib import Path

import pytest
from cosmic_ray.mutating import mutate_code

from benchmarks.mutation import __main__ as mutation
from benchmarks.mutation import judged, rooms, touch
from benchmarks.mutation.mutants import OPERATORS, RemoveStatement, draw, places
from benchmarks.mutation.touch import Touches
from benchmarks.mutation.trial import Verdict

ROOT = Path(__file__).parents[2]
FILE = "fedagent/rules/staleness.py"


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x.y = 1\n", "pass\n"),
        ("x[1] = y\n", "pass\n"),
        ("x += 1\n", "pass\n"),
        ("x.y()\n", "pass\n"),
        ("if x:\n    x.y()  # why\n", "if x:\n    pass  # why\n"),
        ("x = 1\n", None),
        ("a, b = 1, 2\n", None),
        ("return x\n", None),
        ('"""A docstring."""\n', None),
        ("x.y\n", None),
    ],
)
def test_a_statement_that_something_could_miss_is_left_out(before, after):
    assert mutate_code(before, RemoveStatement(), 0) == after


def test_a_mutant_is_another_program_that_differs_on_its_line():
    everything = draw([FILE], 30, seed=0)
    assert len(everything) == 30
    right = Path(FILE).read_text().splitlines()
    for mutant in everything:
        wrong = mutant.code.splitlines()
        assert wrong[: mutant.line - 1] == right[: mutant.line - 1]
        assert wrong != right
        compile(mutant.code, FILE, "exec")


@pytest.mark.parametrize("kind", ["BitOr", "Shift", "Gt_Is", "Is_Lt", "Variable"])
def test_what_any_test_would_notice_is_no_operator(kind):
    assert not [name for name in OPERATORS if kind in name]
    assert {"ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is"} <= set(
        OPERATORS
    )


def test_a_sample_is_its_seed_s_and_takes_each_place_once():
    sources = rooms.sources()
    drawn = draw(sources, 200, seed=1)
    assert drawn[:150] == draw(sources, 150, seed=1)
    assert drawn != draw(sources, 200, seed=2)
    assert len({mutant.path for mutant in drawn}) > 20
    changes = [(mutant.path, mutant.line, mutant.operator, mutant.occurrence) for mutant in drawn]
    assert len(set(changes)) == 200


def test_every_pure_room_and_every_test_of_one_exists():
    assert all(Path(path).exists() for path in [*rooms.PURE, *rooms.tests(), *rooms.SETTINGS])
    assert "fedagent/rules/port.py" in rooms.sources()
    assert rooms.mirror("fedagent/rules/port.py")[0] == "tests/rules"
    assert rooms.mirror("fedagent/proxy/jobs.py")[0] == "tests/proxy/test_jobs.py"


def test_a_mutant_meets_the_tests_that_run_its_function_quickest_first():
    lines = Path(FILE).read_text().splitlines()
    inside = next(n for n, line in enumerate(lines, 1) if "math.exp(-beta * tau)" in line)
    beside = next(n for n, line in enumerate(lines, 1) if "math.prod(" in line)
    seconds = {"slow": 2.0, "quick": 1.0, "other": 0.5, "tests/test_defaults.py::one": 3.0}
    touches = Touches(seconds, {FILE: {str(inside): ["slow", "quick"], str(beside): ["other"]}})
    assert touches.tests(FILE, inside) == ["quick", "slow"]
    assert touches.tests(FILE, beside) == ["other"]
    signature = inside - 2
    assert touches.tests(FILE, signature) == [
        "other",
        "quick",
        "slow",
        "tests/test_defaults.py::one",
    ]


TRIALS = """
import sys
from benchmarks.mutation.mutants import places
from benchmarks.mutation.touch import Touches
from benchmarks.mutation.trial import run_all
path = "fedagent/rules/staleness.py"
everything = [mutant for there in places(path).values() for mutant in there]
(mutant,) = [m for m in everything if m.change[1] == "return math.exp(+beta * tau)"]
for test in sys.argv[1:]:
    lines = {path: {str(mutant.line): [test] if test else []}}
    for verdict in run_all([mutant], Touches({test: 0.1}, lines), jobs=1):
        print(verdict.outcome, verdict.by)
"""
FRESH = "tests/rules/test_staleness.py::test_fresh_update_weighs_exactly_one[exponential]"
LATE = (
    "tests/rules/test_staleness.py::"
    "test_update_past_every_threshold_weighs_less_than_a_fresh_one[exponential]"
)


@pytest.mark.slow
def test_a_growing_weight_is_noticed_by_the_test_that_is_late():
    # In a process that has imported nothing of fedagent, as the tool's own.
    command = [sys.executable, "-c", TRIALS, LATE, FRESH, ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"killed {LATE}", "survived ", "untested "]


def verdicts(*outcomes: str) -> list[Verdict]:
    mutants = draw([FILE], len(outcomes), seed=0)
    return [Verdict(mutant, outcome) for mutant, outcome in zip(mutants, outcomes, strict=True)]


def test_the_share_is_of_the_mutants_that_matter(monkeypatch):
    found = verdicts("killed", "timed out", "survived", "untested", "cannot be imported", "killed")
    assert mutation.summarise(found)["share"] == 0.6, "three of five"
    equal = found[2].mutant
    monkeypatch.setattr(judged, "reasons", lambda: {(equal.path, *equal.change): "the same"})
    summary = mutation.summarise(found)
    assert (summary["share"], summary["make_no_difference"]) == (0.75, 1)
    assert (summary["killed"], summary["survived"], summary["cannot_be_imported"]) == (3, 1, 1)


def test_a_judgement_is_of_a_change_that_exists_and_has_a_reason():
    everything = {
        path: [mutant for there in places(path).values() for mutant in there]
        for path in {path for path, *_ in judged.reasons()}
    }
    for path, before, after in judged.reasons():
        lines = Path(path).read_text().splitlines()
        near = [m for m in everything[path] if lines[m.line - 1].strip() in before]
        assert (before, after) in [m.change for m in near], f"{path}: {before} -> {after}"
    assert all(judged.reasons().values())


def test_a_survivor_is_written_in_the_form_of_a_judgement(monkeypatch, tmp_path):
    mutant = draw([FILE], 1, seed=3)[0]
    monkeypatch.setattr(judged, "FILE", tmp_path / "judged.toml")
    judged.FILE.write_text(judged.entry(mutant))
    assert judged.reasons() == {(mutant.path, *mutant.change): ""}


def test_the_record_is_of_this_code_and_these_tests(monkeypatch, tmp_path):
    monkeypatch.setattr(touch, "FOLDER", tmp_path / "mutation")
    touches = Touches({"a": 1.0}, {FILE: {"1": ["a"]}})
    touch.write(touches)
    assert touch.read() == touches
    before = touch.file()
    monkeypatch.setattr(rooms, "sources", lambda: [FILE])
    assert touch.file() != before
