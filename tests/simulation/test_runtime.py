"""What does the work: as configured, or an error that names the setting."""

import os

import pytest

from fedagent.errors import ConfigurationError
from fedagent.simulation import Runtime
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from tests.simulation.apps import app_of, echo


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"workers": -1}, "workers=-1"),
        ({"vectorise": "yes"}, "vectorise"),
        ({"group_size": 1}, "group_size=1"),
        ({"backend": "threads"}, "backend"),
        ({"address": "auto"}, "backend=ray"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        Runtime(**settings)


def test_no_workers_means_this_process_and_none_one_per_core():
    assert isinstance(Runtime().executor(app_of(echo)), Inline)
    with Runtime(workers=None).executor(app_of(echo)) as executor:
        assert isinstance(executor, Processes)
        assert executor.num_workers == len(os.sched_getaffinity(0))
