"""The gate between a reply and the model."""

from fedagent.admission.gate import Admission

__all__ = ["Admission"]
