"""A Flower app that notes what happens to it."""
