"""docs/port-your-strategy.md, followed to the letter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "port-your-strategy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def execute(tmp_path):
    """Write the page's files and run one of them; return what it printed."""
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(name):
        done = subprocess.run(
            [sys.executable, name],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=300,
            env={"FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_page_s_strategy_keeps_its_best_model(execute):
    printed = execute("simulate.py")
    assert float(re.search(r"error of the best model: (\S+)", printed)[1]) < 0.5
    lowest, reported = re.search(r"lowest loss: (\S+) (\S+)", printed).groups()
    assert float(lowest) == float(reported) < 1.0
    assert float(re.search(r"rmse on the clients: (\S+)", printed)[1]) < 1.0
    assert "lost updates: {}" in printed


def test_the_page_s_strategies_for_trees_are_opaque(execute, tmp_path):
    with (tmp_path / "trees.py").open("a", encoding="utf-8") as file:
        file.write("\nprint(bagging.rule.is_opaque, cyclic.rule.is_opaque)\n")
    assert "True True" in execute("trees.py")


def test_the_page_is_linked_and_names_files_that_exist():
    assert "docs/port-your-strategy.md" in (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|fedagent)/[^`]+)`", PAGE):
        assert (ROOT / name).exists(), name
