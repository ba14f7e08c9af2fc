"""What a real fleet needs beyond Flower's defaults: certificates, keys, a check-up, warm nodes.

Its modules are imported by name: a node's processes should hold what they need and nothing else.
"""
