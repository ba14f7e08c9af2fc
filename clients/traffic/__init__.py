"""Hourly counts of a network of sensors: forecasts for the next hour and the next day."""

from clients.traffic.task import TrafficTask

__all__ = ["TrafficTask"]
