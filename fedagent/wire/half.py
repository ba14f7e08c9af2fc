"""Numbers of 16 bits in place of 32: float16, and bfloat16 with float32's range."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from fedagent.arrays import NDArray
from fedagent.wire.codec import Bytes, Codec, Draws, UnencodableError, require_sound

_DTYPES = {"half": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Half(Codec):
    """Every number rounded to the nearest of 16 bits.

    Parameters
    ----------
    kind : ``half`` has 11 significant bits and ends at 65504; ``bfloat16`` has 8, and no end.
    """

    kind: Literal["half", "bfloat16"] = "half"

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return two for each number."""
        return 2 * math.prod(shape)

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Round them; what ends up infinite is refused."""
        rounded = torch.from_numpy(values).to(_DTYPES[self.kind])
        if not _is_finite(rounded):
            raise UnencodableError(f"There are NaN, or numbers beyond the range of {self.kind}.")
        bits = rounded.view(torch.int16).numpy()
        return [np.ascontiguousarray(bits, "<i2").data.cast("B")]

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Widen them."""
        bits = data.view("<i2").astype(np.int16)
        rounded = torch.from_numpy(bits).view(_DTYPES[self.kind])
        require_sound(_is_finite(rounded), "a number is not finite")
        torch.from_numpy(out).copy_(rounded)


def _is_finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())
