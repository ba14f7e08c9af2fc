import pytest

from benchmarks.flower_processes import Flower


@pytest.fixture
def flower(tmp_path) -> Flower:
    return Flower(tmp_path)
