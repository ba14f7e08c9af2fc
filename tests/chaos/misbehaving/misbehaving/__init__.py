"""A Flower app whose clients do whatever the message says."""
