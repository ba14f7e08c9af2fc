"""Watching a run."""

from fedagent.callbacks.base import Callback, Settlement
from fedagent.callbacks.display import LiveDisplay
from fedagent.callbacks.mlflow import MLflow
from fedagent.callbacks.prometheus import Prometheus
from fedagent.callbacks.tensorboard import TensorBoard

__all__ = ["Callback", "LiveDisplay", "MLflow", "Prometheus", "Settlement", "TensorBoard"]
