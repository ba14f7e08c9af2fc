"""The global model as one contiguous vector, and the way back to named arrays.

Whoever works on whole models works block by block (`blocks`): what one step leaves in the cache
the next finds there, so that any number of steps is one pass over memory and needs no temporary of
a model's size.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fedagent.arrays import ArraySpec, Carry, Fixed, NDArray, fits, reals, require_matches
from fedagent.errors import require

BLOCK = 1 << 18  # elements: a few blocks fit a cache, and one is worth the call of a function

with warnings.catch_warnings():  # a frozen vector is read-only, of which torch warns, but only once
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(bytes(4), np.float32))


@dataclass(frozen=True)
class ModelSpec:
    """Names, shapes, dtypes of arrays, and what is `Fixed` in them. P = averaged real numbers."""

    arrays: tuple[ArraySpec, ...]
    fixed: Mapping[str, Fixed] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, arrays: Mapping[str, NDArray], carried: Mapping[str, Carry] | None = None
    ) -> "ModelSpec":
        """Describe `arrays`; `carried` has policies by name pattern, see `fedagent.arrays`.

        Raises
        ------
        ConfigurationError
            If an array holds no numbers, if there is nothing to average, or if a pattern fits no
            array.
        """
        require_matches(carried or {}, arrays)
        specs = tuple(ArraySpec.of(name, a, carried or {}) for name, a in arrays.items())
        require(
            sum(s.size for s in specs if s.is_averaged) > 0,
            "The initial ArrayRecord holds no floating-point number to average, so there is "
            f"nothing to train ({', '.join(map(str, specs)) or 'it is empty'}); pass "
            "ArrayRecord(model.state_dict()).",
        )
        found = {s.name: Fixed.of(arrays[s.name]) for s in specs if s.is_averaged}
        return cls(specs, {name: fixed for name, fixed in found.items() if fixed})

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the flat vector: the widest floating dtype, at least float32."""
        widest = np.result_type(np.float32, *(s.real_dtype for s in self.arrays if s.is_averaged))
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
                slices[spec.name] = slice(start, start + spec.num_reals)
                start += spec.num_reals
        return slices

    @cached_property
    def num_parameters(self) -> int:
        """P: numbers in all averaged arrays together."""
        return sum(s.num_reals for s in self.arrays if s.is_averaged)

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all arrays together, as they travel."""
        return sum(s.size * np.dtype(s.dtype).itemsize for s in self.arrays)

    @cached_property
    def narrowest(self) -> np.dtype[Any]:
        """The floating dtype with the smallest range in the model."""
        averaged = (s.real_dtype for s in self.arrays if s.is_averaged)
        return min(averaged, key=lambda dtype: dtype.itemsize)

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

    @cached_property
    def block_fixed(self) -> tuple[NDArray, ...]:
        """Of every block of the (P,) vector the positions that are not trained."""
        shifted = [fixed.positions + self.offsets[n].start for n, fixed in self.fixed.items()]
        positions = np.concatenate([np.empty(0, np.int64), *shifted])
        begins = np.arange(len(self.block_parts)) * BLOCK
        bounds = np.searchsorted(positions, [*begins, self.num_parameters])
        return tuple(
            positions[low:high] - begin
            for begin, low, high in zip(begins, bounds, bounds[1:], strict=False)
        )

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
        """Copy what is carried among `arrays`, which need not be all of the model's."""
        return {
            s.name: torch.from_numpy(
                np.array(arrays[s.name], dtype=np.dtype(s.dtype).newbyteorder("="))
            )
            for s in self.arrays
            if s.name not in self.offsets and s.name in arrays
        }

    def unflatten(
        self, vector: torch.Tensor, carried: Mapping[str, torch.Tensor]
    ) -> dict[str, NDArray]:
        """Return named arrays in their own shapes and dtypes; views of `vector` where possible."""
        return {
            s.name: self.array(s, vector)
            if s.name in self.offsets
            else carried[s.name].numpy().reshape(s.shape).astype(s.dtype, copy=False)
            for s in self.arrays
        }

    def array(self, spec: ArraySpec, vector: torch.Tensor) -> NDArray:
        """Return one averaged array of a (P,) vector, in its own shape and dtype; see `Fixed`."""
        flat = vector.numpy()[self.offsets[spec.name]]
        fixed = self.fixed.get(spec.name)
        flat = flat.astype(spec.real_dtype, copy=fixed is not None)
        if fixed is not None:
            flat[fixed.positions] = fixed.values
        return flat.view(spec.dtype).reshape(spec.shape)

    def holds_finite(self, vector: torch.Tensor) -> bool:
        """Return whether all arrays of a (P,) vector are finite in their own dtypes."""
        averaged = [s for s in self.arrays if s.is_averaged and s.size]
        return fits(vector, self.narrowest) or all(
            fits(vector[self.offsets[s.name]], s.real_dtype) for s in averaged
        )


class FrozenVector:
    """The (P,) vector that named arrays make, where they are: read only, and in many pieces.

    A published version is one: its memory is that of the bytes which are sent to the nodes.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, NDArray]) -> None:
        self.spec, self._arrays = spec, arrays

    def blocks(self, scratch: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Yield `BLOCK` elements at a time; views of the arrays where a block lies within one.

        The others are put together in the (P,) `scratch`, each in its place, if it is given; if
        not, the only block of a small model is kept for the next time.
        """
        is_kept = scratch is None and len(self.spec.block_parts) == 1
        yield from (self._only_block,) if is_kept else self._all_blocks(scratch)

    @cached_property
    def _only_block(self) -> torch.Tensor:
        """All of a small model: put together once, for all updates of it."""
        return next(self._all_blocks())

    def _all_blocks(self, scratch: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        dtype = self.spec.numpy_dtype
        flat = {name: reals(self._arrays[name]) for name in self.spec.offsets}
        of_blocks = zip(self.spec.block_parts, self.spec.block_fixed, strict=True)
        for number, (parts, fixed) in enumerate(of_blocks):
            pieces = [flat[name][part] for name, part in parts]
            if len(pieces) == 1 and not len(fixed):
                yield torch.from_numpy(np.asarray(pieces[0], dtype))
                continue
            begin, size = number * BLOCK, sum(map(len, pieces))
            block = np.empty(size, dtype) if scratch is None else scratch.numpy()[begin:][:size]
            np.concatenate([block[:0], *pieces], out=block)  # a model may have no parts
            block[fixed] = 0
            yield torch.from_numpy(block)

    def clone(self) -> torch.Tensor:
        """Return a copy in one piece."""
        vector = self.spec.empty()
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
    return spec.array(array, vector)


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
    vector : (P,) every averaged parameter and buffer.
    carried : the other buffers by name: carried along, never averaged or scaled.
    version : number of versions published so far; 0 is the initial model.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, NDArray]) -> None:
        self.spec = spec
        self.vector, self.carried = spec.flatten(arrays)
        self.version = 0
        self._policies = {s.name: s.carry for s in spec.arrays if s.carry}
        self._carried_from: dict[str, int] = {}

    def carry(self, carried: Mapping[str, torch.Tensor], staleness: int = 0) -> None:
        """Take over a client's carried buffers, each by its policy; see `fedagent.arrays`.

        Parameters
        ----------
        carried : by name; what is left out did not change.
        staleness : of the update that brought them.
        """
        base_version = self.version - staleness
        for name, value in carried.items():
            policy = self._policies[name]
            if policy == "count":
                # NumPy, because torch.maximum knows no uint16, uint32 and uint64.
                higher = np.maximum(self.carried[name].numpy(), value.numpy())
                self.carried[name] = torch.from_numpy(np.asarray(higher))
            elif policy == "newest" and base_version >= self._carried_from.get(name, base_version):
                self.carried[name], self._carried_from[name] = value, base_version

    def arrays(self) -> dict[str, NDArray]:
        """Return named arrays that share memory with this model where dtypes allow it."""
        return self.spec.unflatten(self.vector, self.carried)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here."""
        return {
            "vector": self.vector.clone(),
            "version": self.version,
            "carried": {k: v.clone() for k, v in self.carried.items()},
            "carried_from": dict(self._carried_from),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.vector.copy_(state["vector"])
        self.carried = {k: v.clone() for k, v in state["carried"].items()}
        self._carried_from = dict(state["carried_from"])
        self.version = int(state["version"])
