"""A Flower app that knows no fedagent."""
