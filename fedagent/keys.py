"""Keys that fedagent adds to Flower's ConfigRecord; ``server-round`` is Flower's own."""

LOCAL_STEPS = "local-steps"
"""B_k: local steps asked for."""
LEARNING_RATE = "learning-rate"
"""M_k: the client's step size."""
TOKEN = "fedagent-token"
"""A nonce that a reply should echo in a ConfigRecord of its own."""
UNAPPLIED = "fedagent-unapplied"
"""Tokens of the node's own earlier jobs whose updates are not in the dispatched model; sent with
prefetch, for clients that go on from their own model."""
NUM_APPLIED = "num-applied"
"""How many of the node's updates the proxy has applied so far; sent by rules that need it."""
