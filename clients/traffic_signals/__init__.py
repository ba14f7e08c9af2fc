"""Traffic signals of two cities: every intersection is a node, one policy fits all of them."""

from clients.traffic_signals.task import TrafficSignalsTask

__all__ = ["TrafficSignalsTask"]
