"""Text of many speakers, each of whom keeps it: a model of the next character."""

from clients.language.task import LanguageTask

__all__ = ["LanguageTask"]
