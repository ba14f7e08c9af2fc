import logging
import os
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# An example's 200 ms, and what making one may take, are times of a machine that does nothing else.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


FLEETS = ("tests/chaos/", "tests/integration/")
"""Where processes of real fleets are started: one after the other, they use every core already."""


def pytest_collection_modifyitems(config, items):
    """Begin with what lasts longest, so that no process is left alone with it at the end.

    Fleets, then files with slow tests, then those at the top, which try whole programs.
    """
    if not hasattr(config, "workerinput"):
        return
    files = {}
    for item in items:
        files.setdefault(item.nodeid.split("::", 1)[0], []).append(item)

    def rank(file):
        is_slow = any(item.get_closest_marker("slow") for item in files[file])
        return not file.startswith(FLEETS), not is_slow, file.count("/")

    items[:] = chain.from_iterable(files[file] for file in sorted(files, key=rank))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``-n`` alone, deal files out in their order, each to one process, and the fleets to one.

    A file's tests share what is made for them. Groups by marker need xdist to change the names of
    tests, which pytest 9.2 does not allow.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "fleets" if file.startswith(FLEETS) else file

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Two test processes with two threads each are slower than one thread on a small machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_flower():
    logger = logging.getLogger("flwr")
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(logging.ERROR)
    # `fedagent run` in this process says False; pytest would then listen in two places.
    logger.propagate = True
