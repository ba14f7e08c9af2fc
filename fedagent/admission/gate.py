"""The gate: a reply becomes an `Update` or a `Rejection`, and nothing bad reaches a rule."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedagent import keys
from fedagent._flower import ErrorCode
from fedagent.errors import require
from fedagent.formatting import printable
from fedagent.model import FrozenVector, ModelSpec, NDArray, Vector, array_of, blocks
from fedagent.update import Dispatch, Outcome, Rejection, Update
from fedagent.wire.npy import MalformedArrayError, read_array
from fedagent.wire.records import records_of
from fedagent.wire.rows import read_rows

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


_HEADROOM = 1e-6  # of the largest float: room for a sum over a million clients


class _RefusedError(Exception):
    def __init__(self, outcome: Outcome, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(outcome, reason, printable(detail))  # a client's words, too


def _refuse_unless(condition: bool, reason: str, detail: str) -> None:
    if not condition:
        raise _RefusedError(Outcome.REJECTED, reason, detail)


@contextmanager
def _refusing_malformed() -> Iterator[None]:
    try:
        yield
    except MalformedArrayError as error:
        raise _RefusedError(Outcome.REJECTED, error.reason, str(error)) from error


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
    max_metric_values : numbers in a reply's metrics, list entries included.
    max_count : what an integer buffer may have counted since the dispatch. Integer buffers may only
        count up, and boolean ones may not change: they are carried into the model as they are.
    """

    weighted_by_key: str = "num-examples"
    max_num_examples: float = 1e9
    require_token: bool = False
    max_metric_values: int = 10_000
    max_count: int = 1_000_000_000

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
        try:
            content = self._content(reply, dispatch)
            metrics = self._metrics(content)
            num_examples = self._num_examples(metrics)
            arrays = self._arrays(content, spec, base)
            delta = _delta(FrozenVector(spec, arrays), base, spec, num_examples)
            carried = spec.carried(arrays)
            self._check_carried(carried, base_carried or {})
        except _RefusedError as refused:
            return refused.rejection
        return Update(
            node_id=dispatch.node_id,
            delta=delta,
            base=base,
            staleness=staleness,
            num_examples=num_examples,
            carried=carried,
            metrics=metrics,
            duration_s=now_s - (dispatch.sent_at_s if begun_s is None else begun_s),
            local_steps=dispatch.local_steps,
            arrived_s=now_s,
        )

    def check_metrics(self, reply: Message, dispatch: Dispatch) -> MetricRecord | Rejection:
        """Return the metrics of the reply to an evaluate dispatch, or refuse it."""
        try:
            metrics = self._metrics(self._content(reply, dispatch))
            self._num_examples(metrics)
        except _RefusedError as refused:
            return refused.rejection
        return metrics

    def _content(self, reply: Message, dispatch: Dispatch) -> RecordDict:
        if reply.has_error():
            code = reply.error.code
            raise _RefusedError(
                Outcome.FAILED,
                failure_reason(code),
                f"{'' if code in FAILURES else f'error {code}: '}"
                f"{reply.error.reason or 'the node gave no reason'}",
            )
        sender = reply.metadata.src_node_id
        _refuse_unless(
            sender == dispatch.node_id,
            "wrong-node",
            f"node {sender} answered for node {dispatch.node_id}",
        )
        content = reply.content
        configs = records_of(content, ConfigRecord).values()
        tokens = [c[keys.TOKEN] for c in configs if keys.TOKEN in c]
        _refuse_unless(
            bool(tokens) or not self.require_token,
            "no-token",
            "the reply echoes no token, which require_token asks for",
        )
        _refuse_unless(
            all(token == dispatch.token for token in tokens),
            "wrong-token",
            "the reply echoes the token of another dispatch",
        )
        return content

    def _metrics(self, content: RecordDict) -> MetricRecord:
        records = list(records_of(content, MetricRecord).values())
        _refuse_unless(
            len(records) == 1, "metric-records", f"expected one MetricRecord, found {len(records)}"
        )
        values = [
            v
            for entry in records[0].values()
            for v in (entry if isinstance(entry, list) else [entry])
        ]
        _refuse_unless(
            len(values) <= self.max_metric_values,
            "metrics-too-large",
            f"{len(values)} metric values, more than max_metric_values={self.max_metric_values}",
        )
        _refuse_unless(
            all(isinstance(v, float) or abs(v) < 2**63 for v in values),
            "metrics-too-large",
            "a metric is an integer beyond 64 bits",
        )
        return records[0]

    def _num_examples(self, metrics: MetricRecord) -> float:
        value = metrics.get(self.weighted_by_key)
        if not isinstance(value, int | float):
            raise _RefusedError(
                Outcome.REJECTED,
                "num-examples",
                f"metric {self.weighted_by_key!r} is a {type(value).__name__}, not a number",
            )
        _refuse_unless(
            0 < value <= self.max_num_examples and math.isfinite(value),
            "num-examples",
            f"{self.weighted_by_key}={value} is not in (0, {self.max_num_examples:g}]",
        )
        return float(value)

    def _arrays(self, content: RecordDict, spec: ModelSpec, base: Vector) -> dict[str, NDArray]:
        records = list(records_of(content, ArrayRecord).values())
        _refuse_unless(
            len(records) == 1, "array-records", f"expected one ArrayRecord, found {len(records)}"
        )
        record: ArrayRecord = records[0]
        expected = {s.name for s in spec.arrays}
        # Of some arrays only the changed rows came; see `sparse_rows_mod`.
        in_rows = {name for name in spec.offsets if name + keys.ROWS in record}
        difference = expected.symmetric_difference(record) - {n + keys.ROWS for n in in_rows}
        _refuse_unless(
            not difference,
            "keys",
            f"array names differ from the model's in {sorted(difference)[:5]}",
        )
        with _refusing_malformed():
            return {
                s.name: read_rows(record, s, array_of(base, spec, s))
                if s.name in in_rows
                else read_array(record[s.name], s)
                for s in spec.arrays
            }

    def _check_carried(
        self, carried: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]
    ) -> None:
        for name, before in base.items():
            was, now = before.numpy(), carried[name].numpy()
            is_count = was.dtype != bool
            if is_count:  # modulo 2^64, where no difference of two integers overflows
                steps = now.astype(np.uint64) - was.astype(np.uint64)
                is_sound = (now >= was) & (steps <= self.max_count)
            else:
                is_sound = now == was
            _refuse_unless(
                bool(is_sound.all()),
                "carried",
                f"{name!r} did not count up by at most {self.max_count}"
                if is_count
                else f"the boolean {name!r} changed",
            )


def _delta(
    client: FrozenVector, base: Vector, spec: ModelSpec, num_examples: float
) -> torch.Tensor:
    """Return the (P,) client - base, or refuse it: one pass over both."""
    delta = spec.empty()
    largest_step = _HEADROOM * torch.finfo(delta.dtype).max
    for difference, trained, sent in blocks(delta, client, base):
        torch.sub(trained, sent, out=difference)
        low, high = difference.aminmax()
        step = max(-float(low), float(high)) * num_examples
        if step <= largest_step:  # which NaN is not
            continue
        _refuse_unless(
            all(bool(torch.isfinite(block).all()) for block in client.blocks()),
            "non-finite",
            "the client model holds NaN or infinity",
        )
        raise _RefusedError(
            Outcome.REJECTED,
            "too-large",
            f"num-examples times a parameter's change is {step:.3g}: a sum of such steps overflows",
        )
    return delta
