from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from fedagent.report import Recorder
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Baseline, Metric, RunEnd

ACCURACY = Metric()
COMPLETED = RunEnd("completed", "scripted")
ABOUT = {"app": "vision", "strategy": "fedbuff", "fleet": "pareto", "partition": "iid", "seed": 0}


def model() -> ArrayRecord:
    """A model with the shapes that go wrong: a scalar, and an array that is Fortran-ordered."""
    return ArrayRecord(
        {
            "weight": Array(np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))),
            "steps": Array(np.array(7, dtype=np.int64)),
        }
    )


class ScriptedRun:
    """A recorded run in which version v is published at ``v * step_s`` with ``values[v]``."""

    def __init__(self, recorder: Recorder, step_s: float, is_virtual: bool) -> None:
        self.recorder = recorder
        self.statistics = Statistics(is_virtual=is_virtual, concurrency=2)
        self._step_s = step_s

    def play(self, values: list[float], end: RunEnd | None) -> None:
        self.recorder.on_start(self.statistics)
        for version, value in enumerate(values):
            if version:
                self.publish()
            self.evaluate("server", {"accuracy": value})
        if end:
            self.recorder.on_end(self.statistics, end, model)

    def publish(self) -> None:
        """Two updates, with staleness 0 and 3, make a version."""
        statistics = self.statistics
        statistics.version += 1
        statistics.now_s += self._step_s
        statistics.wall_s += 0.5
        for staleness in (0, 3):
            statistics.received(staleness, 0.0)
            statistics.outcomes["applied", ""] += 1
            statistics.bytes_down += 1000
            statistics.bytes_up += 400
            statistics.busy_s += self._step_s / 2
        self.recorder.on_version(statistics)

    def evaluate(self, source: str, metrics: dict[str, Any]) -> None:
        evaluation = Evaluation(
            self.statistics.version,
            self.statistics.now_s,
            self.statistics.num_updates,
            source,
            metrics,
        )
        self.statistics.evaluated(evaluation)
        self.recorder.on_evaluation(self.statistics, evaluation)


Record = Callable[..., ScriptedRun]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Make ``record(folder, values, step_s=10.0, target=0.9, **about)``, a finished run."""

    def scripted(
        folder: str,
        values: list[float],
        *,
        step_s: float = 10.0,
        target: float | None = 0.9,
        metric: Metric = ACCURACY,
        is_virtual: bool = True,
        end: RunEnd | None = COMPLETED,
        plot: bool = False,
        baseline: Baseline | None = None,
        **about: Any,
    ) -> ScriptedRun:
        if not plot:  # what most tests look at has no pixels, and drawing takes half a second
            monkeypatch.setattr("fedagent.report.recorder.plot_runs", lambda runs, path: None)
        recorder = Recorder(tmp_path / folder, metric, target, ABOUT | about, baseline=baseline)
        run = ScriptedRun(recorder, step_s, is_virtual)
        run.play(values, end)
        return run

    return scripted
