import os
from pathlib import Path

import pytest

from clients.detection.data import load
from tests.clients.detection import made_up


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory):
    return made_up.nuclei(tmp_path_factory.mktemp("nuclei"))


@pytest.fixture(scope="session")
def voc(tmp_path_factory):
    return made_up.voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def fresh():
    load.cache_clear()
    yield
    load.cache_clear()


@pytest.fixture(scope="session")
def users_data():
    """Make ``users_data(NAME)``: a file of which users have copies of their own."""

    def find(name):
        folder = os.environ.get("FEDAGENT_DATA")
        if folder is None:
            pytest.skip(f"the environment variable FEDAGENT_DATA names no folder with {name}")
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        return path

    return find
