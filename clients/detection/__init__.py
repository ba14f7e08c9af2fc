"""Object detection: scenes of handwritten digits, nuclei under microscopes, any VOC folder."""

from clients.detection.task import DetectionTask

__all__ = ["DetectionTask"]
