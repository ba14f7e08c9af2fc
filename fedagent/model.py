"""The global model as one contiguous vector, and the way back to named arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedagent.errors import require

NDArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One named array of the model: its shape and NumPy dtype (``"float32"``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_averaged(self) -> bool:
        """Floating arrays (normalisation buffers too) are averaged; the others are carried."""
        return np.issubdtype(np.dtype(self.dtype), np.floating)


@dataclass(frozen=True)
class ModelSpec:
    """Names, shapes and dtypes of a model's arrays, in order. P = number of float elements."""

    arrays: tuple[ArraySpec, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray]) -> "ModelSpec":
        """Describe `arrays`.

        Raises
        ------
        ConfigurationError
            If an array is complex or holds no numbers, or if no array is floating.
        """
        specs = tuple(ArraySpec(name, a.shape, str(a.dtype)) for name, a in arrays.items())
        for spec in specs:
            kind = np.dtype(spec.dtype).kind
            require(
                kind in "fiub",
                f"Array {spec.name!r} has dtype {spec.dtype}, which cannot be "
                "averaged or carried; send it outside the ArrayRecord.",
            )
        require(
            any(s.is_averaged for s in specs),
            "The initial ArrayRecord holds no floating-point array, so there is nothing to "
            "train; pass ArrayRecord(model.state_dict()).",
        )
        return cls(specs)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the flat vector: the widest floating dtype, at least float32."""
        widest = np.result_type(np.float32, *(s.dtype for s in self.arrays if s.is_averaged))
        return torch.float32 if widest == np.float32 else torch.float64

    @cached_property
    def offsets(self) -> dict[str, slice]:
        """Where each averaged array lies in the (P,) vector."""
        slices, start = {}, 0
        for spec in self.arrays:
            if spec.is_averaged:
                slices[spec.name] = slice(start, start + spec.size)
                start += spec.size
        return slices

    @cached_property
    def num_parameters(self) -> int:
        """P: elements of all averaged arrays together."""
        return sum(s.size for s in self.arrays if s.is_averaged)

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all arrays together, as they travel."""
        return sum(s.size * np.dtype(s.dtype).itemsize for s in self.arrays)

    def flatten(
        self, arrays: Mapping[str, NDArray]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Copy `arrays` (which must match this spec) into a new (P,) vector and carried arrays."""
        vector = torch.empty(self.num_parameters, dtype=self.dtype)
        view = vector.numpy()
        carried = {}
        for spec in self.arrays:
            if spec.is_averaged:
                view[self.offsets[spec.name]] = arrays[spec.name].reshape(-1)
            else:
                native = np.dtype(spec.dtype).newbyteorder("=")
                carried[spec.name] = torch.from_numpy(np.array(arrays[spec.name], dtype=native))
        return vector, carried

    def unflatten(
        self, vector: torch.Tensor, carried: Mapping[str, torch.Tensor]
    ) -> dict[str, NDArray]:
        """Return named arrays in their own shapes and dtypes; views of `vector` where possible."""
        view = vector.numpy()
        arrays: dict[str, NDArray] = {}
        for spec in self.arrays:
            flat = view[self.offsets[spec.name]] if spec.is_averaged else carried[spec.name].numpy()
            arrays[spec.name] = flat.reshape(spec.shape).astype(spec.dtype, copy=False)
        return arrays


class FlatModel:
    """The global model that a rule mutates in place.

    Attributes
    ----------
    spec : the way back to named arrays.
    vector : (P,) every floating parameter and buffer.
    carried : integer and boolean buffers by name: carried along, never averaged or scaled.
    version : number of versions published so far; 0 is the initial model.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, NDArray]) -> None:
        self.spec = spec
        self.vector, self.carried = spec.flatten(arrays)
        self.version = 0

    def carry(self, carried: Mapping[str, torch.Tensor]) -> None:
        """Take over a client's integer buffers.

        The element-wise maximum keeps counters such as BatchNorm's ``num_batches_tracked``
        monotone whatever the order of arrival; arrays that never change stay as they are.
        """
        for name, value in carried.items():
            # NumPy, because torch.maximum knows no uint16, uint32 and uint64.
            largest = np.maximum(self.carried[name].numpy(), value.numpy())
            self.carried[name] = torch.from_numpy(np.asarray(largest))

    def arrays(self) -> dict[str, NDArray]:
        """Return named arrays that share memory with this model where dtypes allow it."""
        return self.spec.unflatten(self.vector, self.carried)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here."""
        return {
            "vector": self.vector.clone(),
            "version": self.version,
            "carried": {k: v.clone() for k, v in self.carried.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.vector.copy_(state["vector"])
        self.carried = {k: v.clone() for k, v in state["carried"].items()}
        self.version = int(state["version"])
