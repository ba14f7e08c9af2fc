"""The networks of the application: one hidden layer, or logistic regression.

38 findings and 16 hidden units make 641 parameters; logistic regression has 39.
"""

from torch import nn

from clients.hospitals.features import NUM_FEATURES

MODELS = ("mlp", "logistic")


def build(name: str, hidden: int = 16) -> nn.Module:
    """Return a fresh network, one of `MODELS`, with (B, 1) logits of being sick."""
    if name == "logistic":
        return nn.Linear(NUM_FEATURES, 1)
    return nn.Sequential(nn.Linear(NUM_FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 1))
