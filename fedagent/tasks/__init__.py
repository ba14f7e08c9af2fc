"""What applications share: the contract of a task, and what most of them need."""

from fedagent.tasks.task import Batch, Task, check_partition_id, epochs

__all__ = ["Batch", "Task", "check_partition_id", "epochs"]
