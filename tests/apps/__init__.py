"""Small Flower apps as people publish them; only the line that makes the strategy is a parameter.

Each has a ``client`` and ``server(wrap)``, which builds a ServerApp around ``wrap(Strategy(...))``.
"""
