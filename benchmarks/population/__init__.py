"""Whether a large population trains as fast as a small one, in memory that does not grow."""
