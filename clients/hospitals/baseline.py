"""What a hospital can do on its own: the number that a federation has to beat."""

import torch

from clients.hospitals.task import HospitalsTask, summary
from fedagent.client import LocalTraining, train

ALONE = LocalTraining(learning_rate=0.1, local_steps=150, batch_size=64, weight_decay=0.1)
"""Chosen on the validation patients of other splits (seeds 1001 to 1012)."""


def baseline(task: HospitalsTask) -> dict[str, float]:
    """Train every hospital on its own patients, examine it on its own test patients.

    Same model, same split as `task`; mean and deviation are those of the hospital alone.

    Returns
    -------
    dict[str, float]
        As `HospitalsTask.evaluate`.
    """
    by_site = {}
    for site in task.sites:
        alone = task.alone(site.name)
        torch.manual_seed(task.seed)
        model = alone.build_model()
        train(alone, model, alone.batches(0, ALONE.batch_size), ALONE, torch.device("cpu"))
        by_site[site.name] = alone.evaluate(model, torch.device("cpu"))
    return summary(by_site)
