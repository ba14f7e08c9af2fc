"""Seconds from a command to its end, beside Flower's simulation."""
