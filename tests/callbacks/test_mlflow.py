"""The MLflow store, read back through MLflow."""

import sys
import threading
from functools import partialmethod
from pathlib import Path

import mlflow
import pytest
from flwr.app import ArrayRecord, MetricRecord

from fedagent import FedBuff
from fedagent.callbacks import Callback, MLflow
from fedagent.callbacks.background import Background
from fedagent.config import compose
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.report.recorder import MODEL_FILE, PLOT_FILE
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE
from fedagent.simulation import Lognormal
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from tests.toy import Log, run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/store.db"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the store puts artifacts into ./mlruns


def only_run(store: str, experiment: str):
    client = mlflow.MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


def history(client, found, metric: str) -> list[tuple[int, float]]:
    points = client.get_metric_history(found.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def strategy(*callbacks: Callback) -> FedBuff:
    return FedBuff(concurrency=4, fraction_evaluate=0.0, callbacks=callbacks)


def loss(version, arrays):
    return MetricRecord({"loss": 1.0 / (1 + version), "per_class": [0.1, 0.2]})


def test_run_is_in_the_store_with_parameters_metrics_and_files(store, tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "week.txt").touch()
    log = Log()
    watcher = MLflow(
        "whole",
        store,
        about={"strategy": "fedbuff", "strategy.rule@x": [1, 2], "seed": 3},
        artifacts=[str(model), str(plots), str(tmp_path / "was-never-written")],
    )

    run(strategy(watcher, log), Lognormal(num_nodes=8), rounds=6, evaluate_fn=loss)

    client, found = only_run(store, "whole")
    assert found.info.status == "FINISHED"
    assert found.data.tags["ended"] == log.reason
    assert found.data.params == {"strategy": "fedbuff", "strategy.rule_x": "[1, 2]", "seed": "3"}
    assert history(client, found, "server/loss") == [
        (v, pytest.approx(1 / (1 + v))) for v in range(7)
    ]
    assert found.data.metrics["run/updates"] == log.statistics.num_updates == 24
    assert found.data.metrics["traffic/bytes_down"] == log.statistics.bytes_down
    assert "server/per_class" not in found.data.metrics
    run_id = found.info.run_id
    assert [file.path for file in client.list_artifacts(run_id)] == [model.name, "plots"]
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/week.txt"]
    points = client.get_metric_history(found.info.run_id, "server/loss")
    times = {point.step: point.timestamp for point in points}
    for version, _, now_s in log.versions:
        assert times[version] - times[0] == pytest.approx(1000 * now_s, abs=2)


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_run_that_dies_is_ended_and_keeps_its_metrics(store, error, status):
    def evaluate(version, arrays):
        if version == 3:
            raise error("no more")
        return loss(version, arrays)

    with pytest.raises(error):
        run(strategy(MLflow(status, store)), Lognormal(num_nodes=8), rounds=6, evaluate_fn=evaluate)

    client, found = only_run(store, status)
    assert found.info.status == status
    assert found.info.end_time is not None
    assert error.__name__ in found.data.tags["ended"]
    assert [step for step, _ in history(client, found, "server/loss")] == [0, 1, 2]


def test_run_that_cannot_log_its_parameters_is_not_left_running(store, monkeypatch):
    def refuse(self, run_id, params=(), **kwargs):
        raise ValueError("these parameters never")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)

    with pytest.raises(ConfigurationError, match="these parameters never"):
        run(strategy(MLflow("refused", store)), Lognormal(num_nodes=8))

    assert only_run(store, "refused")[1].info.status == "FAILED"


def test_two_runs_at_the_same_time_do_not_mix(store):
    first, second = MLflow("first", store), MLflow("second", store)
    for number, watcher in ((1, first), (2, second)):
        watcher.on_start(Statistics())
        watcher.on_evaluation(Statistics(), Evaluation(0, 0.0, 0, "server", {"number": number}))
    for watcher in (first, second):
        watcher.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)
        watcher.on_end(Statistics(), RunEnd("failed", "a callback after it"), ArrayRecord)

    for number, experiment in ((1, "first"), (2, "second")):
        _, found = only_run(store, experiment)
        assert found.data.metrics["server/number"] == number
        assert found.info.status == "FINISHED"


def test_store_that_goes_away_neither_ends_nor_delays_the_run(store, monkeypatch):
    released = threading.Event()

    def never(self, *args, **kwargs):
        released.wait(20)
        raise ConnectionError("the server is gone")

    class CutOff(Callback):
        def on_version(self, statistics):
            if statistics.version == 2:
                monkeypatch.setattr(mlflow.MlflowClient, "log_batch", never)
            if statistics.version == 6:
                released.set()  # it would wait for ever if the loop waited for the store

    log = Log()
    run(strategy(CutOff(), MLflow("gone", store), log), Lognormal(num_nodes=8), rounds=6)

    assert log.statistics.version == 6
    assert released.is_set()


def test_what_a_slow_store_takes_after_the_end_still_belongs_to_its_run(store, monkeypatch):
    is_sending, released, runs = threading.Event(), threading.Event(), []
    watcher = MLflow("slow", store)
    watcher.on_start(Statistics())
    run_id = only_run(store, "slow")[1].info.run_id

    def slowly(self, run_id, metrics):
        is_sending.set()
        released.wait(20)
        runs.append(run_id)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", slowly)
    monkeypatch.setattr(Background, "close", partialmethod(Background.close, patience_s=0.01))
    sender = watcher._metrics._thread
    watcher.on_evaluation(Statistics(), Evaluation(0, 0.0, 0, "server", {"loss": 1.0}))
    assert is_sending.wait(20)
    watcher.on_end(Statistics(), "4 versions", ArrayRecord)  # its totals wait behind
    released.set()
    sender.join(20)

    assert runs == [run_id, run_id]


def test_shipped_configuration_uploads_what_the_recorder_writes():
    cfg = compose("monitor=mlflow output_dir=out", CONF)

    assert set(cfg.monitor.mlflow.artifacts) == {
        f"out/{name}"
        for name in (SUMMARY_FILE, METRICS_FILE, MODEL_FILE, PLOT_FILE.partition("/")[0])
    }
    assert cfg.monitor.mlflow.about == cfg.about


def test_unreachable_server_is_told_before_the_run(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(ConfigurationError, match=r"http://127.0.0.1:1 .*tracking_uri"):
        MLflow("nowhere", "http://127.0.0.1:1").on_start(Statistics())


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[mlflow\]"'):
        MLflow("experiment")
