"""Round trips and updates per second of a real fleet."""
