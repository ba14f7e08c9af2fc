"""What applications share: the contract of a task, and what most of them need.

task          `Task`, what an application says; `Task.evaluate` and the references built on it
batches       `epochs`: batches without end
splits        `deal` data to nodes, with something held out on each; `stratified` by label, by
              group, or `cut` by time; `check_partition_id`, `check_fractions`
partitioning  how data is dealt: iid, dirichlet, shards, label_by_speed
evaluation    `outputs` of a model batch by batch, `classification` metrics, `over_nodes`: means
              and the worst node
images        `Images` in memory, to train on and to evaluate
showcase      `Showcase`: what there is to look at at the end of a run
figures       an empty figure, a confusion matrix
packaged      `Package`: data that comes inside one, and the pip line where it is missing
"""

from fedagent.tasks.batches import epochs
from fedagent.tasks.evaluation import Metrics, classification, outputs, over_nodes
from fedagent.tasks.packaged import Package
from fedagent.tasks.showcase import Showcase
from fedagent.tasks.splits import (
    Split,
    Splits,
    check_fractions,
    check_partition_id,
    cut,
    deal,
    stratified,
)
from fedagent.tasks.task import Batch, Task

__all__ = [
    "Batch",
    "Metrics",
    "Package",
    "Showcase",
    "Split",
    "Splits",
    "Task",
    "check_fractions",
    "check_partition_id",
    "classification",
    "cut",
    "deal",
    "epochs",
    "outputs",
    "over_nodes",
    "stratified",
]
