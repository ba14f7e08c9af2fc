"""What goes into a Flower strategy, a reply that waits in a buffer, and what comes out: a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedagent._flower import record_of, reply_from, with_content
from fedagent.arrays import NDArray
from fedagent.model import FlatModel, ModelSpec
from fedagent.update import Update
from fedagent.wire.records import common_metrics, from_record, records_of, to_record


@dataclass(frozen=True, eq=False)
class FlowerReply:
    """An update that waits.

    Attributes
    ----------
    node_id : the node that computed it.
    delta : (P,) its change of the model, weighed.
    carried : integer and boolean buffers of the client's model, by name.
    metrics : what the client measured.
    arrays_key : name of the model's record in the reply.
    base_version : the version that it started from.
    weight : s(tau), what it was weighed by.
    envelope : the reply as it came, but for a model that is rebased; None of an update that never
        travelled.
    """

    node_id: int
    delta: torch.Tensor
    carried: Mapping[str, torch.Tensor]
    metrics: Mapping[str, Any]
    arrays_key: str
    base_version: int = 0
    weight: float = 1.0
    envelope: Message | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        update: Update,
        weight: float,
        message: Message | None,
        arrays_key: str,
        base_version: int,
        weighted_by_key: str,
        is_whole: bool = False,
    ) -> "FlowerReply":
        """Weigh an update, which came in `message`; keep that whole where nothing is rebased.

        Under `weighted_by_key` the strategy finds what filters left of the reply's claim.
        """
        envelope = None
        if message is not None:
            known = records_of(message.content, ArrayRecord)
            arrays_key = arrays_key if arrays_key in known else next(iter(known))
            kept = dict(message.content)
            records = kept if is_whole else {n: r for n, r in kept.items() if n != arrays_key}
            if (claim := update.metrics.get(weighted_by_key)) is not None:
                for name, record in records_of(message.content, MetricRecord).items():
                    if record.get(weighted_by_key, claim) != claim:
                        records[name] = MetricRecord({**record, weighted_by_key: claim})
            envelope = with_content(message, record_of(RecordDict, records))
        delta = update.delta.mul_(weight)
        metrics, carried = dict(update.metrics), update.carried
        said = update.node_id, delta, carried, metrics, arrays_key, base_version, weight
        return cls(*said, envelope)

    def message(self, model: FlatModel) -> Message:
        """Return the reply with a whole model: as it came, or the update on top of `model`."""
        if self.envelope is not None and self.arrays_key in self.envelope.content:
            return with_content(self.envelope, record_of(RecordDict, self.envelope.content))
        carried = {**model.carried, **self.carried}
        arrays = to_record(model.spec.unflatten(self.delta + model.vector, carried))
        if self.envelope is None:
            content = {self.arrays_key: arrays, "metrics": MetricRecord(dict(self.metrics))}
            return reply_from(self.node_id, record_of(RecordDict, content))
        records: dict[str, Any] = {self.arrays_key: arrays, **self.envelope.content}
        return with_content(self.envelope, record_of(RecordDict, records))

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, without the envelope."""
        return {
            "node_id": self.node_id,
            "delta": self.delta.clone(),
            "carried": dict(self.carried),
            "metrics": dict(self.metrics),
            "arrays_key": self.arrays_key,
            "base_version": self.base_version,
            "weight": self.weight,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "FlowerReply":
        """Return what `state_dict` was asked of."""
        return cls(**{**state, "delta": state["delta"].clone()})


def with_common_metrics(replies: Sequence[Message]) -> list[Message]:
    """Return replies whose first MetricRecord holds what all of them measured.

    Flower's aggregation raises where one reply has a metric that another lacks, which in a fleet of
    different devices is no mistake.
    """
    firsts = [next(iter(records_of(r.content, MetricRecord).items()), None) for r in replies]
    named = [first for first in firsts if first is not None]
    if len(named) < len(replies) or not replies:
        return list(replies)
    shared = common_metrics([record for _, record in named])
    return [
        with_content(reply, RecordDict({**reply.content, name: reduced["metrics"]}))
        for reply, (name, _), reduced in zip(replies, named, shared, strict=True)
    ]


def read_model(record: ArrayRecord, spec: ModelSpec) -> dict[str, NDArray]:
    """Return the arrays of an aggregated model; ValueError if they are not those of `spec`."""
    arrays = from_record(record)
    for expected in spec.arrays:
        if not expected.is_averaged:
            continue
        if expected.name not in arrays:
            raise ValueError(f"the aggregated model lacks the array {expected.name!r}")
        shape, dtype = arrays[expected.name].shape, arrays[expected.name].dtype
        kinds = "fiuc" if np.dtype(expected.dtype).kind == "c" else "fiu"
        if shape != expected.shape or dtype.kind not in kinds:
            raise ValueError(
                f"the aggregated array {expected.name!r} is {dtype}{list(shape)}, the model's is "
                f"{expected.dtype}{list(expected.shape)}"
            )
    return arrays
