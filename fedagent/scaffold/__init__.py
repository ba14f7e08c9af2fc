"""``fedagent new``: an application of one's own that runs as it is, to be changed from there."""

from fedagent.scaffold.application import create

__all__ = ["create"]
