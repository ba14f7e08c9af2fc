"""run.json: what is known when a run begins, without what others must not see."""

import json

from fedagent.report import Recorder
from fedagent.report.beginning import BEGINNING_FILE, begun_with
from fedagent.statistics import Statistics
from fedagent.stopping import Baseline
from tests.report.conftest import ABOUT, ACCURACY

WORDS = "strategy=fedavg monitor.mlflow.tracking_uri=http://me:secret@there output_dir='/home/me'"


def test_a_run_tells_at_its_start_what_it_is(tmp_path):
    told = begun_with(WORDS, {"seed": 3, "monitor": {"uri": "secret"}}, updates=500, seconds=None)
    recorder = Recorder(
        tmp_path, ACCURACY, 0.9, ABOUT, baseline=Baseline("mean", 0.7), begun_with=told
    )
    recorder.on_start(Statistics(is_virtual=True))

    text = (tmp_path / BEGINNING_FILE).read_text()
    said = json.loads(text)
    assert said["overrides"] == ["strategy=fedavg"]
    assert said["config"] == {"seed": 3}
    assert said["limits"] == {"updates": 500, "seconds": None}
    assert (said["target"], said["is_virtual"]) == (0.9, True)
    assert said["baseline"] == {"name": "mean", "value": 0.7}
    assert said["software"]["python"]
    assert "secret" not in text
    assert "/home/me" not in text
