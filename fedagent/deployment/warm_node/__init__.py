"""``fedagent node``: Flower's SuperNode, whose ClientApps start warm."""
