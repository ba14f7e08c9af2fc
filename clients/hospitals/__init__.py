"""Heart disease in four hospitals: the UCI data, every hospital a node."""

from clients.hospitals.task import HospitalsTask

__all__ = ["HospitalsTask"]
