"""The client: local training, the device it runs on, and a ClientApp for any `Task`."""

from fedagent.client.app import build_client_app
from fedagent.client.device import resolve_device
from fedagent.client.spec import ClientSpec
from fedagent.client.trainer import LocalTraining, PrivateTraining, train
from fedagent.client.trusted import TrustedTraining

__all__ = [
    "ClientSpec",
    "LocalTraining",
    "PrivateTraining",
    "TrustedTraining",
    "build_client_app",
    "resolve_device",
    "train",
]
