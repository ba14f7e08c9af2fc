"""Medical imaging: brain MRI with near-duplicates (Br35H), and MedMNIST by name."""

from clients.medical.task import MedicalTask

__all__ = ["MedicalTask"]
