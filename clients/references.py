"""Two numbers to know before you believe a third: what something simple reaches, and pooled data.

    python -m clients.references app=hospitals
    python -m clients.references app=medical seed=2 evaluate_on=validation

prints the metrics of `Task.baseline` and of `Task.centralised` on the test split: the application's
own model, trained on everybody's data in one place for as many steps as a run makes on all nodes
together, with the client's settings and what ``Task.central`` changes of them. The words are those
of ``fedagent run``. With ``evaluate_on=validation`` the second is that of the nodes' validation
data, to choose settings by.
"""

import json
import shlex
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from fedagent.client import LocalTraining, resolve_device, train
from fedagent.config import build_task, compose, instantiate
from fedagent.errors import FedagentError, require
from fedagent.tasks import Metrics, Task

CONF = Path(__file__).parents[1] / "conf"


def centralised(cfg: DictConfig, task: Task) -> Metrics:
    """Return what pooled data gives, for the steps that all nodes of a run make together."""
    device = resolve_device(cfg.device)
    require(
        cfg.stopping.max_updates is not None,
        "The centralised reference does as many steps as a run, which has no end of updates; set "
        "stopping.max_updates.",
    )
    steps = cfg.local_steps * cfg.stopping.max_updates
    training: LocalTraining = instantiate(cfg.client, **task.central, local_steps=steps)

    def fit(task: Task, model: nn.Module) -> None:
        train(task, model, task.batches(None, training.batch_size), training, device)

    torch.manual_seed(cfg.seed)
    return task.centralised(fit, device, cfg.evaluate_on)


def main(words: list[str]) -> None:
    """Print both, as JSON."""
    cfg = compose(shlex.join(words), CONF)
    task = build_task(cfg)
    torch.manual_seed(cfg.seed)
    found = {"baseline": task.baseline(), "centralised": centralised(cfg, task)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FedagentError as error:
        sys.exit(str(error))
