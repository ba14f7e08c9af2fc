"""A Flower app whose messages are timed."""
