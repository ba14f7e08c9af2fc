"""What is measured: one package per question, each a command (``python -m benchmarks.engine``).

Shared are `machine` (what all of them print), `simulated` (a run on MNIST to a target accuracy) and
`flower_processes` (a SuperLink and SuperNodes on this machine).
"""
