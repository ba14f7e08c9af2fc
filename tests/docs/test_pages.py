"""Pages with code are followed to the letter; their figures are those that were measured."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def write(name, folder):
    """Write the files of a page, each under the name in its first line."""
    for text in blocks(name, "python") + blocks(name, "toml"):
        (folder / re.match(r"# (\S+)\n", text)[1]).write_text(text, encoding="utf-8")


def do(words, folder):
    program = {"python": [sys.executable], "fedagent": [sys.executable, "-m", "fedagent"]}
    done = subprocess.run(
        [*program[words[0]], *words[1:]],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_unequal_devices_cost_and_gain_what_the_page_says(tmp_path):
    name = "unequal-devices.md"
    write(name, tmp_path)
    before, after = blocks(name, "bash")
    (changes,) = blocks(name, "diff")
    told = {}
    for line in (before, after):
        errors = re.findall(r"^error: (\S+)", do(shlex.split(line), tmp_path), re.MULTILINE)
        folder = tmp_path / re.search(r"hydra.sweep.dir=(\S+)", line)[1]
        for fleet, error, job in zip(
            ("equal", "two_class", "lognormal"), errors, "012", strict=True
        ):
            seconds = json.loads((folder / job / "simulation.json").read_text())["virtual_s"]
            told.setdefault(fleet, []).extend([f"{seconds:.0f}", f"{float(error):.3f}"])
        app = (tmp_path / "app.py").read_text()
        for old, new in re.findall(r"^-(.*)\n\+(.*)\n", changes, re.MULTILINE):
            assert old in app or line is after
            app = app.replace(old, new)
        (tmp_path / "app.py").write_text(app)
    for fleet, values in told.items():
        assert f"| {fleet} | {' | '.join(values)} |" in page(name)


def test_every_strategy_of_the_one_line_page_learns(tmp_path):
    write("one-line.md", tmp_path)
    printed = do(["python", "four.py"], tmp_path)
    ended = re.findall(r"^(\w+): 40 rounds, model (\S+)$", printed, re.MULTILINE)
    assert [name for name, _ in ended] == ["FedBuff", "FedAdam", "FedAsync", "CA2FL"]
    assert all(abs(float(model) - 0.5) < 0.2 for _, model in ended), ended


@pytest.mark.parametrize(
    "number", re.findall(r"(?<![\w.])\d[\d,]*\.?\d+x?(?![\w.%])", page("which-rule.md"))
)
def test_figures_of_which_rule_when_are_measured_ones(number):
    measured = page("algorithms.md")
    assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", measured)


def test_rules_and_schedulers_of_which_rule_when_can_be_chosen():
    offered = {path.stem for path in (ROOT / "conf").rglob("*.yaml")}
    table = [line for line in page("which-rule.md").splitlines() if line.startswith("|")]
    named = set(re.findall(r"`(?:scheduler=)?([a-z_0-9]+)`", "\n".join(table)))
    assert named <= offered, named - offered
