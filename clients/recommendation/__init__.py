"""Recommendation: one user per node, whose vector never leaves it."""

from clients.recommendation.task import RecommendationTask

__all__ = ["RecommendationTask"]
