"""One run: the loop, its traffic, and every version that comes out of it."""
