"""What aggregation moves, against the speed of memory."""
