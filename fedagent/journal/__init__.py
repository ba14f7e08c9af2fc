"""What a run needs to come back: its state as a file that is whole or not there."""

from fedagent.journal.capture import Snapshot, capture
from fedagent.journal.checkpoints import Checkpoints
from fedagent.journal.kinds import NotNow
from fedagent.journal.lock import Lock
from fedagent.journal.log import Log
from fedagent.journal.restore import restore

__all__ = ["Checkpoints", "Lock", "Log", "NotNow", "Snapshot", "capture", "restore"]
