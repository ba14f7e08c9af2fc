import pytest
from flwr.supercore.task_identity import TaskIdentity

from fedagent import model


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Even the smallest vectors of these tests are worked on in several blocks."""
    monkeypatch.setattr(model, "BLOCK", 2)


@pytest.fixture(autouse=True)
def _inside_a_server_app(monkeypatch):
    """Flower's strategies make messages only where Flower has said who is running."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
