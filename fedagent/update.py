"""What travels between the proxy and its nodes, once Flower's envelope is off.

Sign convention, said once: Delta = client model - dispatched model, so a rule *adds* Delta.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from fedagent.model import Vector


class Kind(StrEnum):
    """What a node was asked to do."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    UNMASK = "unmask"
    """To do its part in a secure sum that its update is in."""

    @property
    def message_type(self) -> str:
        """Flower's word for it: every ClientApp knows ``train``, and a mod the rest."""
        return str(Kind.TRAIN if self is Kind.UNMASK else self)


class Outcome(StrEnum):
    """How a dispatch ended; every dispatch ends in exactly one of these."""

    APPLIED = "applied"
    """The rule received the update (an evaluation: its metrics were aggregated)."""
    REJECTED = "rejected"
    """A reply came and was refused; the reason says why."""
    FAILED = "failed"
    """An error came instead of a reply, or the dispatch could not be sent."""
    EXPIRED = "expired"
    """No reply came before the deadline or before the run ended."""


@dataclass(frozen=True, slots=True)
class Group:
    """The jobs that a scheduler wants aggregated together.

    Attributes
    ----------
    number : which group, >= 0; its next jobs begin when it is complete.
    size : updates that complete it, >= 1. A job that is lost is not one: another takes its place.
    """

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One job handed to one node.

    Attributes
    ----------
    message_id : the id Flower gave the message.
    node_id : who was asked.
    version : the published model version that was sent (the *base* version of the update).
    token : a nonce; a reply that echoes another one is refused.
    sent_at_s, deadline_s : clock times in seconds.
    kind : train or evaluate.
    local_steps : B_k asked for, or None when the ClientApp decides.
    learning_rate : M_k asked for, or None when the ClientApp decides.
    bytes_down : serialised model bytes that were sent; 0 where nobody counted them.
    group : the group it belongs to, if the scheduler forms any.
    codec : how its reply may be encoded; see `fedagent.wire.codecs`. Empty for not at all.
    codec_seed : of the random bits of that.
    """

    message_id: str
    node_id: int
    version: int
    token: str
    sent_at_s: float
    deadline_s: float
    kind: Kind = Kind.TRAIN
    local_steps: int | None = None
    learning_rate: float | None = None
    bytes_down: int = 0
    group: Group | None = None
    codec: str = ""
    codec_seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """An admitted reply, as a rule sees it. Shape legend: P = number of float parameters.

    Attributes
    ----------
    node_id : who computed it.
    delta : (P,) client model - dispatched model. The rule may use its memory as scratch.
    base : (P,) the dispatched model. Shared with other updates: read only. It need not be in one
        piece: work on it with `fedagent.model.blocks`.
    staleness : tau >= 0, published versions since the dispatch, counted by the ledger.
    num_examples : the weight the client reported, > 0.
    carried : buffers of the client model that are not averaged, by name: those to be taken over.
    largest_change : max_j |delta_j|, as it arrived.
    metrics : the client's scalar and list metrics.
    duration_s : seconds from dispatch to reply, on the run's clock; for a job that queued at its
        node, from the reply before.
    local_steps : B_k that was asked for, or None.
    arrived_s : when it arrived, in seconds since the run began.
    group : the group that its job belonged to, or None.
    sealed : public keys of a node that keeps the change itself, and then `delta` and `base` are
        empty; see `fedagent.privacy.secure`.
    """

    node_id: int
    delta: torch.Tensor
    base: Vector
    staleness: int
    num_examples: float = 1.0
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)
    largest_change: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float = 0.0
    local_steps: int | None = None
    arrived_s: float = 0.0
    group: Group | None = None
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reply that may not touch the model: how its dispatch ends, and why.

    Attributes
    ----------
    outcome : REJECTED (a bad reply) or FAILED (an error in place of a reply).
    reason : a short kebab-case word that is counted, such as ``non-finite``.
    detail : one sentence for the log.
    blames_node : whether its node is to rest. It is not where the schedule or the server is the
        cause, as of an update that came too late for the rule.
    """

    outcome: Outcome
    reason: str
    detail: str
    blames_node: bool = True
