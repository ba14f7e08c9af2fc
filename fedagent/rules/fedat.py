r"""FedAT: a synchronous model per tier of equally fast nodes, and their mean, slow tiers first.

    a round of tier m is complete:    w_m <- sum_i n_i y_i / sum_i n_i,    T_m <- T_m + 1
    the model, after every one:       x <- sum_m T_{M+1-m} / T w_m,        T = sum_m T_m

with the tiers 1, ..., M from the fastest to the slowest, y_i = base_i + Delta_i the models of the
round's nodes and n_i their examples. The slowest tier has finished the fewest rounds, and its model
gets the weight of the fastest one's count.

Chai et al., "FedAT: A High-Performance and Communication-Efficient Federated Learning System with
Asynchronous Tiers", SC 2021, arXiv 2010.05958; read in its abstract, a summary that quotes the
formula, and an implementation by others, whose tiers begin with the initial model and are formed
once. `fedagent.scheduling.Tiers` makes the tiers and their rounds.

Departures. Here M counts the tiers that have finished a round. With all of them, as published, a
tier without one counts with the initial model, and the fastest has no weight before the slowest
has finished: until then x is hardly trained. The clients' proximal term and the compression of
messages are not part of a server's rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.rules.buffer import Buffer
from fedagent.update import Update


@dataclass(eq=False)
class _Tier:
    """The round under way, and what the last one made: w_m, None before the first; T_m."""

    buffer: Buffer = field(default_factory=Buffer)
    model: torch.Tensor | None = None
    num_rounds: int = 0


class FedAT(Rule):
    """FedAT's server rule. Keeps two (P,) vectors per tier.

    An update whose job belonged to no group measured its node's speed, and is counted as lost.
    """

    def __init__(self) -> None:
        self._tiers: dict[int, _Tier] = {}
        self._num_ungrouped = 0

    @property
    def needs_groups(self) -> bool:
        """Yes: the tiers."""
        return True

    @property
    def pending(self) -> int:
        """Updates of the rounds under way."""
        return sum(len(tier.buffer) for tier in self._tiers.values())

    @property
    def lost(self) -> Mapping[str, int]:
        """Updates of no tier."""
        return {"no-group": self._num_ungrouped} if self._num_ungrouped else {}

    def metrics(self) -> Mapping[str, float]:
        """Return T_m by tier."""
        return {f"rounds-of-tier-{m}": t.num_rounds for m, t in sorted(self._tiers.items())}

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add a node's model to its tier's round; the round's last one publishes."""
        if update.group is None:
            self._num_ungrouped += 1
            return False
        tier = self._tiers.setdefault(update.group.number, _Tier())
        for client, base in blocks(update.delta, update.base):
            client.add_(base)
        tier.buffer.add(update.delta, update.num_examples)
        model.carry(update.carried, update.staleness)
        if len(tier.buffer) < update.group.size:
            return False
        tier.model, tier.num_rounds = tier.buffer.take().clone(), tier.num_rounds + 1
        self._average(model)
        return True

    def _average(self, model: FlatModel) -> None:
        finished = [tier for _, tier in sorted(self._tiers.items()) if tier.num_rounds]
        total = sum(tier.num_rounds for tier in finished)
        model.vector.zero_()
        for tier, mirrored in zip(finished, reversed(finished), strict=True):
            assert tier.model is not None
            model.vector.add_(tier.model, alpha=mirrored.num_rounds / total)

    def state_dict(self) -> dict[str, Any]:
        """Return the tiers' models, counts and rounds under way."""
        return {
            "num_ungrouped": self._num_ungrouped,
            "tiers": {
                str(number): {
                    "buffer": tier.buffer.state_dict(),
                    "model": None if tier.model is None else tier.model.clone(),
                    "num_rounds": tier.num_rounds,
                }
                for number, tier in self._tiers.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._num_ungrouped = int(state["num_ungrouped"])
        self._tiers = {}
        for number, kept in state["tiers"].items():
            tier = self._tiers[int(number)] = _Tier(num_rounds=int(kept["num_rounds"]))
            tier.buffer.load_state_dict(kept["buffer"])
            tier.model = None if kept["model"] is None else kept["model"].clone()
