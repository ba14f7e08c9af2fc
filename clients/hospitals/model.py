"""The networks of the application: one hidden layer, or none.

Of heart disease 38 features and 16 hidden units make 641 parameters; logistic regression has 39.
Without a hidden layer a length of stay is a linear regression, whatever the name says.
"""

from torch import nn

MODELS = ("mlp", "logistic")


def build(name: str, num_features: int, hidden: int = 16) -> nn.Module:
    """Return a fresh network, one of `MODELS`: (B, 1) logits of being sick, or log days."""
    if name == "logistic":
        return nn.Linear(num_features, 1)
    return nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))
