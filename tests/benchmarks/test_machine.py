"""What every benchmark prints, and that every command the documentation names is there."""

import importlib
import json
import re
from pathlib import Path

import pytest

from benchmarks import machine

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
TEXTS = [*DOCS, ROOT / "Makefile"]
NAMED = sorted(
    {
        name
        for text in TEXTS
        for name in re.findall(r"python -m benchmarks\.(\w+)", text.read_text(encoding="utf-8"))
    }
)
PACKAGES = sorted(path.parent.name for path in ROOT.glob("benchmarks/*/__main__.py"))


def test_results_come_with_hardware_versions_configuration_and_seeds_on_the_last_line(capsys):
    machine.print_result("engine", {"ratio": 2.0}, quick=True, seeds=[1, 2])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["benchmark"], line["ratio"], line["seeds"]) == ("engine", 2.0, [1, 2])
    assert {"processor", "cpus", "accelerators", "load", "threads", "python"} <= set(line)
    assert all(line[name] for name in ("fedagent", "flwr", "torch", "numpy"))


def test_what_is_not_installed_has_no_version():
    assert machine.version_of("a-distribution-that-is-not-there") is None


def test_every_benchmark_that_the_documentation_names_is_a_package():
    assert NAMED
    assert set(NAMED) <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_is_a_command_that_says_what_it_measures(name, capsys, monkeypatch):
    command = importlib.import_module(f"benchmarks.{name}.__main__")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    assert f"python -m benchmarks.{name}" in command.__doc__
    assert command.__doc__.splitlines()[0].split(",")[0][:30] in capsys.readouterr().out
