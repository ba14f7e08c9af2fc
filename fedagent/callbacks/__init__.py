"""Watching a run."""

from fedagent.callbacks.base import Callback, Settlement, tell_end
from fedagent.callbacks.display import LiveDisplay
from fedagent.callbacks.json_log import JsonLog
from fedagent.callbacks.mlflow import MLflow
from fedagent.callbacks.prometheus import Prometheus
from fedagent.callbacks.tensorboard import TensorBoard

__all__ = [
    "Callback",
    "JsonLog",
    "LiveDisplay",
    "MLflow",
    "Prometheus",
    "Settlement",
    "TensorBoard",
    "tell_end",
]
