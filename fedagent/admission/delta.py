"""What a reply changes: client model - base, or what an encoded update stands for."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from flwr.app import ArrayRecord

from fedagent import keys
from fedagent.admission.refusal import RefusedError, refuse_unless
from fedagent.arrays import ArraySpec
from fedagent.model import FrozenVector, ModelSpec, Vector, blocks
from fedagent.update import Dispatch, Outcome
from fedagent.wire.codec import decode, num_bytes
from fedagent.wire.codecs import codec_of
from fedagent.wire.npy import MalformedArrayError, read_array

_HEADROOM = 1e-6  # of the largest float: room for a sum over a million clients


def difference(
    client: FrozenVector, base: Vector, spec: ModelSpec, num_examples: float
) -> tuple[torch.Tensor, float]:
    """Return the (P,) client - base and its largest element, or refuse it: one pass over both."""
    delta = spec.empty()

    def subtracted() -> Iterator[torch.Tensor]:
        for (part, sent), trained in zip(
            blocks(delta, base), client.blocks(scratch=delta), strict=True
        ):
            yield torch.sub(trained, sent, out=part)

    def is_finite(part: torch.Tensor) -> bool:
        return all(bool(torch.isfinite(block).all()) for block in client.blocks())

    return delta, _largest_change(subtracted(), delta.dtype, num_examples, is_finite)


def decoded(
    record: ArrayRecord, dispatch: Dispatch, spec: ModelSpec, num_examples: float
) -> tuple[torch.Tensor, float]:
    """Return the (P,) update that an encoded reply stands for and its largest element.

    How it is encoded is what its dispatch said, so its length is known before it is read.
    """
    refuse_unless(
        bool(dispatch.codec), "codec", "the reply is encoded, and its dispatch named no codec"
    )
    codec = codec_of(dispatch.codec)
    size = num_bytes(codec, spec)
    try:
        data = read_array(record[keys.ENCODED], ArraySpec(keys.ENCODED, (size,), "uint8"))
    except MalformedArrayError as error:
        raise RefusedError(Outcome.REJECTED, "codec", str(error)) from error
    delta = spec.empty()
    fixed = np.concatenate(
        [np.empty(0, np.int64)]
        + [spec.offsets[name].start + own.positions for name, own in spec.fixed.items()]
    )

    def read() -> Iterator[torch.Tensor]:
        vector = delta.numpy()
        try:
            for place in decode(codec, data, spec, dispatch.codec_seed, vector):
                low, high = np.searchsorted(fixed, (place.start, place.stop))
                vector[fixed[low:high]] = 0.0  # what is not trained
                yield delta[place]
        except MalformedArrayError as error:
            raise RefusedError(Outcome.REJECTED, error.reason, str(error)) from error

    def is_finite(part: torch.Tensor) -> bool:
        return bool(torch.isfinite(part).all())

    return delta, _largest_change(read(), delta.dtype, num_examples, is_finite)


def _largest_change(
    parts: Iterator[torch.Tensor],
    dtype: torch.dtype,
    num_examples: float,
    is_finite: Callable[[torch.Tensor], bool],
) -> float:
    """Go through the parts of an update; return its largest element, or refuse it."""
    largest, largest_step = 0.0, _HEADROOM * torch.finfo(dtype).max
    for part in parts:
        low, high = part.aminmax()
        change = max(-float(low), float(high))
        step = change * num_examples
        if step <= largest_step:  # which NaN is not
            largest = max(largest, change)
            continue
        refuse_unless(
            is_finite(part),
            "non-finite",
            "the client model holds NaN or infinity where the dispatched one does not",
        )
        raise RefusedError(
            Outcome.REJECTED,
            "too-large",
            f"num-examples times a parameter's change is {step:.3g}: a sum of such steps overflows",
        )
    return largest
