"""The global model as one contiguous vector, and the way back to named arrays.

Whoever works on whole models works block by block (`blocks`): what one step leaves in the cache
the next finds there, so that any number of steps is one pass over memory and needs no temporary of
a model's size.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedagent.errors import require

NDArray = npt.NDArray[Any]

BLOCK = 1 << 18  # elements: a few blocks fit a cache, and one is worth the call of a function

with warnings.catch_warnings():  # a frozen vector is read-only, of which torch warns, but only once
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(bytes(4), np.float32))


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
    def numpy_dtype(self) -> np.dtype[Any]:
        """The same for NumPy."""
        return np.dtype(np.float32 if self.dtype == torch.float32 else np.float64)

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

    @cached_property
    def block_parts(self) -> tuple[tuple[tuple[str, slice], ...], ...]:
        """Of every block of the (P,) vector the arrays, and the parts of them, that lie in it."""
        parts = []
        for begin in range(0, max(1, self.num_parameters), BLOCK):
            end = min(begin + BLOCK, self.num_parameters)
            parts.append(
                tuple(
                    (name, slice(max(begin, at.start) - at.start, min(end, at.stop) - at.start))
                    for name, at in self.offsets.items()
                    if at.start < end and begin < at.stop
                )
            )
        return tuple(parts)

    def empty(self) -> torch.Tensor:
        """Return a new (P,) vector of whatever is in memory."""
        # NumPy's, because NumPy asks for huge pages: without, the first touch of every 4 KiB costs
        # as much as several passes over them.
        return torch.from_numpy(np.empty(self.num_parameters, self.numpy_dtype))

    def flatten(
        self, arrays: Mapping[str, NDArray]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Copy `arrays` (which must match this spec) into a new (P,) vector and carried arrays."""
        return FrozenVector(self, arrays).clone(), self.carried(arrays)

    def carried(self, arrays: Mapping[str, NDArray]) -> dict[str, torch.Tensor]:
        """Copy the integer and boolean arrays among `arrays`."""
        return {
            s.name: torch.from_numpy(
                np.array(arrays[s.name], dtype=np.dtype(s.dtype).newbyteorder("="))
            )
            for s in self.arrays
            if s.name not in self.offsets
        }

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


class FrozenVector:
    """The (P,) vector that named arrays make, where they are: read only, and in many pieces.

    A published version is one: its memory is that of the bytes which are sent to the nodes.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, NDArray]) -> None:
        self._spec, self._arrays = spec, arrays

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield `BLOCK` elements at a time; views of the arrays where a block lies within one."""
        if len(self._spec.block_parts) == 1:
            yield self._only_block
            return
        yield from self._all_blocks()

    @cached_property
    def _only_block(self) -> torch.Tensor:
        """All of a small model: put together once, for all updates of it."""
        return next(self._all_blocks())

    def _all_blocks(self) -> Iterator[torch.Tensor]:
        dtype = self._spec.numpy_dtype
        flat = {name: self._arrays[name].reshape(-1) for name in self._spec.offsets}
        for parts in self._spec.block_parts:
            if len(parts) == 1:
                name, part = parts[0]
                yield torch.from_numpy(np.asarray(flat[name][part], dtype))
                continue
            pieces = [flat[name][part] for name, part in parts]
            block, end = np.empty(sum(map(len, pieces)), dtype), 0
            for piece in pieces:
                begin, end = end, end + len(piece)
                block[begin:end] = piece
            yield torch.from_numpy(block)

    def clone(self) -> torch.Tensor:
        """Return a copy in one piece."""
        vector = self._spec.empty()
        for copied, block in blocks(vector, self):
            copied.copy_(block)
        return vector

    def array(self, name: str) -> NDArray:
        """Return one of the arrays: read only."""
        return self._arrays[name]


Vector = torch.Tensor | FrozenVector


def array_of(vector: Vector, spec: ModelSpec, array: ArraySpec) -> NDArray:
    """Return one averaged array of a (P,) vector, in its own shape and dtype: read only."""
    if isinstance(vector, FrozenVector):
        return vector.array(array.name)
    flat = vector.numpy()[spec.offsets[array.name]]
    return flat.reshape(array.shape).astype(array.dtype, copy=False)


def blocks(*vectors: Vector) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield equally long (P,) vectors block by block, side by side.

    >>> for x, delta, base in blocks(model.vector, update.delta, update.base):  # doctest: +SKIP
    ...     x.lerp_(base + delta, 0.5)
    """
    return zip(*map(_split, vectors), strict=True)


def _split(vector: Vector) -> Iterable[torch.Tensor]:
    if isinstance(vector, FrozenVector):
        return vector.blocks()
    return torch.split(vector, BLOCK) if len(vector) > BLOCK else (vector,)


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
