"""Connected spoken digits: what six speakers say, as a sequence of words."""

from clients.speech.task import SpeechTask

__all__ = ["SpeechTask"]
