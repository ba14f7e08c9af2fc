"""The gate: a reply becomes an `Update` or a `Rejection`, and nothing bad reaches a rule."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedagent import keys
from fedagent._flower import ErrorCode
from fedagent.admission.carried import explained, taken_over
from fedagent.admission.delta import decoded, difference
from fedagent.admission.named import carried_arrays, named_arrays, record_under
from fedagent.admission.refusal import RefusedError, refuse_unless
from fedagent.errors import require
from fedagent.formatting import printable
from fedagent.model import FrozenVector, ModelSpec, Vector
from fedagent.update import Dispatch, Outcome, Rejection, Update
from fedagent.wire.records import metrics_of, records_of

logger = logging.getLogger("flwr.fedagent")

FAILURES = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "client-app-not-loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "client-app-raised",
    ErrorCode.MESSAGE_UNAVAILABLE: "message-unavailable",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "reply-unavailable",
    ErrorCode.NODE_UNAVAILABLE: "node-unavailable",
    ErrorCode.MOD_FAILED_PRECONDITION: "mod-failed",
    ErrorCode.INVALID_FAB: "invalid-app-bundle",
    ErrorCode.CLIENT_APP_CRASHED: "client-app-crashed",
}


def failure_reason(code: int) -> str:
    """Return the reason under which an error is counted.

    A node may invent codes as it likes; all that Flower does not know are one reason.
    """
    return FAILURES.get(code, "unknown-error")


_NAME_CHARACTERS = 20  # of a metric's name, on average


@dataclass(frozen=True)
class Admission:
    """What a reply must be to touch the model.

    Parameters
    ----------
    weighted_by_key : the metric that holds the client's weight.
    max_num_examples : a client that claims more is refused; Flower's aggregation would let one
        client with 1e12 examples replace the model.
    require_token : refuse replies that do not echo their dispatch's token. Unmodified ClientApps
        do not, fedagent's own do; an echoed token that is wrong is always refused.
    max_metric_values : numbers in a reply's metrics, list entries included. All names together may
        have 20 times as many characters.
    max_count : what an integer buffer may have counted since the dispatch. One that did anything
        else is not taken over; see `fedagent.arrays`.
    arrayrecord_key : of several ArrayRecords in a reply, the name of the model's.
    """

    weighted_by_key: str = "num-examples"
    max_num_examples: float = 1e9
    require_token: bool = False
    max_metric_values: int = 10_000
    max_count: int = 1_000_000_000
    arrayrecord_key: str = "arrays"
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(
            self.max_num_examples > 0, f"max_num_examples={self.max_num_examples} must be positive."
        )

    def check(
        self,
        reply: Message,
        dispatch: Dispatch,
        spec: ModelSpec,
        base: Vector,
        staleness: int,
        now_s: float,
        base_carried: Mapping[str, torch.Tensor] | None = None,
        begun_s: float | None = None,
    ) -> Update | Rejection:
        """Turn the reply to a train dispatch into an update of the (P,) `base`, or refuse it.

        Its duration counts from `begun_s`, by default from the dispatch.
        """
        if not spec.arrays:  # a model that only its rule understands
            return self._whole(reply, dispatch, base, staleness, now_s, begun_s)
        try:
            content = self.content(reply, dispatch)
            metrics = self._metrics(content)
            num_examples = self._num_examples(metrics)
            record = record_under(self.arrayrecord_key, content)
            if keys.ENCODED in record:
                delta, largest_change = decoded(record, dispatch, spec, num_examples)
                arrays = carried_arrays(record, spec)
            else:
                arrays = named_arrays(record, spec, base)
                client = FrozenVector(spec, arrays)
                delta, largest_change = difference(client, base, spec, num_examples)
            carried = self._carried(spec.carried(arrays), spec, base_carried or {})
        except RefusedError as refused:
            return refused.rejection
        return Update(
            node_id=dispatch.node_id,
            delta=delta,
            base=base,
            staleness=staleness,
            num_examples=num_examples,
            carried=carried,
            largest_change=largest_change,
            metrics=metrics,
            duration_s=now_s - (dispatch.sent_at_s if begun_s is None else begun_s),
            local_steps=dispatch.local_steps,
            arrived_s=now_s,
            group=dispatch.group,
        )

    def _whole(
        self,
        reply: Message,
        dispatch: Dispatch,
        base: Vector,
        staleness: int,
        now_s: float,
        begun_s: float | None,
    ) -> Update | Rejection:
        """Let a reply through whose arrays its rule reads; all else of it is checked."""
        metrics = self.check_metrics(reply, dispatch)
        if isinstance(metrics, Rejection):
            return metrics
        if not any(records_of(reply.content, ArrayRecord).values()):
            return Rejection(Outcome.REJECTED, "array-records", "the reply holds no array")
        return Update(
            node_id=dispatch.node_id,
            delta=torch.empty(0),
            base=base,
            staleness=staleness,
            num_examples=float(metrics[self.weighted_by_key]),  # type: ignore[arg-type]
            metrics=metrics,
            duration_s=now_s - (dispatch.sent_at_s if begun_s is None else begun_s),
            local_steps=dispatch.local_steps,
            arrived_s=now_s,
            group=dispatch.group,
        )

    def check_metrics(self, reply: Message, dispatch: Dispatch) -> MetricRecord | Rejection:
        """Return the metrics of the reply to an evaluate dispatch, or refuse it."""
        try:
            metrics = self._metrics(self.content(reply, dispatch))
            self._num_examples(metrics)
        except RefusedError as refused:
            return refused.rejection
        return metrics

    def content(self, reply: Message, dispatch: Dispatch) -> RecordDict:
        """Return what a reply holds; raise RefusedError where it answers another dispatch."""
        if reply.has_error():
            code = reply.error.code
            raise RefusedError(
                Outcome.FAILED,
                failure_reason(code),
                f"{'' if code in FAILURES else f'error {code}: '}"
                f"{reply.error.reason or 'the node gave no reason'}",
            )
        sender = reply.metadata.src_node_id
        refuse_unless(
            sender == dispatch.node_id,
            "wrong-node",
            f"node {sender} answered for node {dispatch.node_id}",
        )
        content = reply.content
        configs = records_of(content, ConfigRecord).values()
        tokens = [c[keys.TOKEN] for c in configs if keys.TOKEN in c]
        refuse_unless(
            bool(tokens) or not self.require_token,
            "no-token",
            "the reply echoes no token, which require_token asks for",
        )
        refuse_unless(
            all(token == dispatch.token for token in tokens),
            "wrong-token",
            "the reply echoes the token of another dispatch",
        )
        return content

    def _metrics(self, content: RecordDict) -> MetricRecord:
        metrics = metrics_of(content, self.weighted_by_key)
        if metrics is None:
            names = sorted(records_of(content, MetricRecord))
            raise RefusedError(
                Outcome.REJECTED,
                "metric-records",
                f"expected one MetricRecord with {self.weighted_by_key!r}, found {names[:5]}",
            )
        refuse_unless(
            sum(map(len, metrics)) <= _NAME_CHARACTERS * self.max_metric_values,
            "metrics-too-large",
            f"the names of {len(metrics)} metrics are longer than {_NAME_CHARACTERS} times "
            f"max_metric_values={self.max_metric_values} characters",
        )
        values = [
            v for entry in metrics.values() for v in (entry if isinstance(entry, list) else [entry])
        ]
        refuse_unless(
            len(values) <= self.max_metric_values,
            "metrics-too-large",
            f"{len(values)} metric values, more than max_metric_values={self.max_metric_values}",
        )
        refuse_unless(
            all(isinstance(v, float) or abs(v) < 2**63 for v in values),
            "metrics-too-large",
            "a metric is an integer beyond 64 bits",
        )
        return metrics

    def _num_examples(self, metrics: MetricRecord) -> float:
        refuse_unless(
            self.weighted_by_key in metrics,
            "num-examples",
            f"metric {self.weighted_by_key!r} is missing; metrics there are: "
            f"{printable(', '.join(sorted(metrics)[:10])) or 'none'}",
        )
        value = metrics[self.weighted_by_key]
        if not isinstance(value, int | float):
            raise RefusedError(
                Outcome.REJECTED,
                "num-examples",
                f"metric {self.weighted_by_key!r} is a {type(value).__name__}, not a number",
            )
        refuse_unless(
            0 < value <= self.max_num_examples and math.isfinite(value),
            "num-examples",
            f"{self.weighted_by_key}={value} is not in (0, {self.max_num_examples:g}]",
        )
        return float(value)

    def _carried(
        self,
        carried: Mapping[str, torch.Tensor],
        spec: ModelSpec,
        base: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Return what the model may take over; say once of each array that it may not."""
        taken = taken_over(carried, spec, base, self.max_count)
        for name in carried.keys() - taken.keys() - self._told:
            if name in base and not np.array_equal(carried[name].numpy(), base[name].numpy()):
                self._told.add(name)
                logger.warning("%s", explained(name, spec))
        return taken
