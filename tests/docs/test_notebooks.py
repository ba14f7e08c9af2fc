"""The notebooks run from their first cell to their last, and are stored without what they print."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """Execute a notebook as somebody would who has fedagent; return all that its cells printed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in all tests

    def execute(name):
        notebook = nbformat.read(ROOT / "docs" / "notebooks" / name, as_version=4)
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=300, resources=place).execute()
        outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
        return "".join(out.get("text", "") for out in outputs)

    return execute


@pytest.mark.slow
def test_five_minutes_show_rounds_that_wait_and_rules_that_do_not(printed):
    text = printed("five-minutes.ipynb")
    took = {
        n: float(s) for n, s in re.findall(r"^(\w+) +300 updates in +(\d+) virtual", text, re.M)
    }
    assert took.keys() == {"FedAvg", "FedBuff", "FedAsync"}
    assert max(took["FedBuff"], took["FedAsync"]) < took["FedAvg"] / 3
    assert all(float(error) < 0.1 for error in re.findall(r"error (\S+)$", text, re.M))


@pytest.mark.slow
def test_an_application_of_your_own_learns(printed):
    federated, centralised = re.search(
        r"federated (\S+), centralised (\S+)", printed("your-application.ipynb")
    ).groups()
    assert float(federated) > 0.85
    assert float(centralised) > 0.85


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_fedagent_first_and_stores_no_outputs(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert re.search(r"%pip install .*fedagent", cells[0].source)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert f"notebooks/{path.name}" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
