"""Linear and logistic regression on synthetic data."""

from clients.regression.task import RegressionTask

__all__ = ["RegressionTask"]
