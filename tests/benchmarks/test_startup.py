import json
import subprocess
import sys

import pytest

from benchmarks.startup import __main__ as startup
from benchmarks.startup.__main__ import IMPORTS, RUN, Sample


@pytest.mark.slow
def test_a_run_is_measured_beside_the_imports_it_needs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["startup", "--quick"])
    startup.main()
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["run_wall_s"] > found["imports_wall_s"] > 0
    assert found["ratio"] == pytest.approx(
        found["run_wall_s"] / found["imports_wall_s"], rel=0.01
    ), "one repetition"
    assert any(line.startswith("| ratio |") for line in table)


SLOW = ("torch._dynamo", "torchvision", "torchmetrics", "datasets", "pandas", "scipy", "sklearn")

RUN_AND_LIST = """
import sys
from fedagent.cli import main
try:
    main()
except SystemExit:
    pass
print("imported:", *sys.modules)
"""


@pytest.mark.parametrize("runtime", ["processes", "inline"])
def test_the_default_application_imports_nothing_slow_that_it_does_not_use(runtime, tmp_path):
    run = (*RUN[2:], f"runtime={runtime}", f"output_dir={tmp_path}", f"hydra.run.dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, *run], check=True, capture_output=True, text=True
    )
    assert (tmp_path / "plots" / "metric.png").exists(), "a whole run"
    assert not set(SLOW).intersection(done.stdout.splitlines()[-1].split())


def test_ratios_are_those_of_repetitions_side_by_side():
    samples = {
        "run": [Sample(4.0, 5.0), Sample(40.0, 6.0), Sample(6.0, 6.0)],
        "imports": [Sample(2.0, 2.0), Sample(20.0, 2.0), Sample(2.0, 2.0)],
    }
    found = startup.summarise(samples)
    assert (found["ratio"], found["cpu_ratio"]) == (2.0, 3.0)
    assert (found["run_wall_s"], found["imports_wall_s"]) == (6.0, 2.0)


def test_both_are_measured_in_turn_and_the_first_are_not_counted(monkeypatch):
    done = []

    def measure(*arguments):
        done.append(arguments[: len(IMPORTS)])
        return Sample(float(len(done)), 0.0)

    monkeypatch.setattr(startup, "measure", measure)
    samples = startup.side_by_side(2)
    assert done == [RUN[:2], IMPORTS] * 3
    assert [s.wall_s for s in samples["run"]] == [3.0, 5.0]


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(subprocess.CalledProcessError):
        startup.measure("-c", "import sys; sys.exit(3)")
