"""Verses of a bible in two languages: translations that no book could have learned alone."""

from clients.translation.task import TranslationTask

__all__ = ["TranslationTask"]
