"""``fedagent doctor``: a check-up of a machine and of its way to a SuperLink."""

from fedagent.deployment.doctor.examination import Examination, doctor

__all__ = ["Examination", "doctor"]
