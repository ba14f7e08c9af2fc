import pytest

from fedagent._flower import DRIVER_NODE_ID, identify_process


@pytest.fixture(autouse=True)
def _identity():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    yield
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
