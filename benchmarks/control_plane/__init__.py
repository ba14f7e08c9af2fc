"""Tasks per second and memory with up to a million nodes."""
