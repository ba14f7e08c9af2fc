import pytest

from fedagent import model


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Even the smallest vectors of these tests are worked on in several blocks."""
    monkeypatch.setattr(model, "BLOCK", 2)
