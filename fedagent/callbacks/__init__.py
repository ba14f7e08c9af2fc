"""Watching a run."""

from fedagent.callbacks.base import Callback, Settlement
from fedagent.callbacks.display import LiveDisplay
from fedagent.callbacks.prometheus import Prometheus

__all__ = ["Callback", "LiveDisplay", "Prometheus", "Settlement"]
