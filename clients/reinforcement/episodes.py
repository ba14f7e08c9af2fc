"""To act: some steps that are learned from, and whole episodes that are scored.

Shape legend: T steps, B machines, O numbers in an observation.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from clients.reinforcement.environments import MAX_STEPS, Floats, Machines
from clients.reinforcement.model import ActorCritic

_CRITIC = 0.005
"""Weight c of the critic's squared error: returns are tens, the actor's terms about 1."""
_USUAL = 10.0
"""Size of an advantage that matters."""


class Steps(NamedTuple):
    """What B machines did for T steps."""

    observations: torch.Tensor
    """(T + 1, B, O), the last one after the last action"""
    actions: torch.Tensor
    """(T, B) int64"""
    rewards: torch.Tensor
    """(T, B)"""
    is_over: torch.Tensor
    """(T, B) 1 where an action ended the episode, and from there on; else 0"""
    counts: torch.Tensor
    """(T, B) 1 until the episode is over, its last step with it; else 0"""


@torch.no_grad()
def act(model: ActorCritic, machines: Machines, num_steps: int, device: torch.device) -> Steps:
    """Draw actions from the policy, by the global torch seed, for T steps."""
    seen, done = [machines.observe()], []
    for _ in range(num_steps):
        logits = model(torch.from_numpy(seen[-1]).to(device))
        # Gumbel: the largest of logits plus such noise is a draw from their softmax.
        noise = -torch.log(-torch.log(torch.rand(logits.shape).clamp_(1e-9, 1 - 1e-7)))
        actions = (logits.cpu().float() + noise).argmax(-1)
        step = machines.step(actions.numpy())
        seen.append(step.observations)
        done.append((actions, torch.from_numpy(step.rewards), torch.from_numpy(step.is_over)))
    actions, rewards, is_over = map(torch.stack, zip(*done, strict=True))
    is_over = is_over.float().cummax(0).values
    counts = 1 - torch.cat((torch.zeros_like(is_over[:1]), is_over[:-1]))
    return Steps(
        *(
            t.to(device)
            for t in (torch.from_numpy(np.stack(seen)), actions, rewards, is_over, counts)
        )
    )


def advantages(
    steps: Steps, values: torch.Tensor, discount: float, smoothing: float
) -> torch.Tensor:
    """Return the (T, B) advantages of what was done over what is usual.

    A_t = delta_t + gamma lambda A_(t+1), delta_t = r_t + gamma V_(t+1) - V_t; nothing follows the
    end of an episode. Schulman et al., arXiv 1506.02438.

    Parameters
    ----------
    values : (T + 1, B) V.
    discount : gamma, in (0, 1].
    smoothing : lambda, in [0, 1]: 0 trusts the critic, 1 what was earned.
    """
    follows = 1 - steps.is_over
    delta = steps.rewards + discount * values[1:] * follows - values[:-1]
    found = torch.zeros_like(delta)
    later = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        later = delta[t] + discount * smoothing * follows[t] * later
        found[t] = later
    return found * steps.counts


def loss_of(
    model: ActorCritic, steps: Steps, discount: float, smoothing: float, entropy: float
) -> torch.Tensor:
    """Return the mean over all steps of -log pi(a) A / 10 + c (V - V_target)^2 - entropy H(pi).

    A is divided by a constant. Standardised, as is usual, it would be noise of full size as soon as
    no pole falls any more, and the policy would forget. V_target is V + A; neither passes a
    gradient on.
    """
    values = model.value(steps.observations)
    gain = advantages(steps, values.detach(), discount, smoothing)
    error = values[:-1] - (values.detach()[:-1] + gain)
    logs = model(steps.observations[:-1]).log_softmax(-1)
    chosen = logs.gather(-1, steps.actions.unsqueeze(-1)).squeeze(-1)
    doubt = -(logs.exp() * logs).sum(-1)
    total = steps.counts.sum()

    def mean(of: torch.Tensor) -> torch.Tensor:
        return (of * steps.counts).sum() / total

    return mean(_CRITIC * error.square() - chosen * gain / _USUAL - entropy * doubt)


def returns(model: nn.Module, machines: Machines, device: torch.device) -> Floats:
    """Return the (B,) sums of rewards of one episode each, always doing the likeliest action."""
    observations = machines.observe()
    earned = np.zeros(len(observations))
    goes_on = np.ones(len(observations), bool)
    for _ in range(MAX_STEPS):
        logits = model(torch.from_numpy(observations).to(device))
        observations, rewards, is_over = machines.step(logits.argmax(-1).cpu().numpy())
        earned += rewards * goes_on
        goes_on &= ~is_over
        if not goes_on.any():
            break
    return earned
