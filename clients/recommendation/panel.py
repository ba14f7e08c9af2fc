"""Users for a server that knows none: fitted to the shared items from the training ratings.

What a device does before it trains (`fedagent.client.PrivateTraining`) is done here for all users
side by side. Only a server that has the training ratings can: a simulation's, or one with a panel
of users who gave theirs. Elsewhere the nodes evaluate themselves (``fraction_evaluate``).
"""

from typing import TYPE_CHECKING

import torch

from clients.recommendation.model import PRIVATE, Recommender
from clients.recommendation.sampling import Sampler
from fedagent.client.device import to_device

if TYPE_CHECKING:
    from clients.recommendation.task import RecommendationTask

_RATINGS = 8
_LEARNING_RATE = 0.05


def fitted_panel(
    task: "RecommendationTask", model: Recommender, device: torch.device
) -> Recommender:
    """Return a model with the items of `model` and all users of the task, fitted to them.

    Adam, ``task.panel_steps`` steps from fresh users, on 8 ratings of each user a step. The random
    numbers are its own: the same items make the same users, whatever was drawn before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        panel = task.build_panel().to(device)
    shared, _ = task.split_state(model.state_dict())
    panel.load_state_dict(shared | task.split_state(panel.state_dict())[1])
    for name, parameter in panel.named_parameters():
        parameter.requires_grad_(name.startswith(f"{PRIVATE}."))
    ratings = task.cut.train
    counts = torch.bincount(ratings.users, minlength=ratings.num_users).unsqueeze(1)
    first = counts.cumsum(0) - counts
    generator = torch.Generator().manual_seed(task.seed)
    sampler = Sampler(ratings, task.num_others, generator)
    optimizer = torch.optim.Adam(panel.users.parameters(), lr=_LEARNING_RATE)
    for _ in range(task.panel_steps):
        drawn = torch.rand(ratings.num_users, _RATINGS, generator=generator)
        batch = sampler.batch(first + (drawn * counts).long())
        optimizer.zero_grad()
        loss = task.loss(panel, to_device(batch._replace(users=batch.users[:, :1]), device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return panel
