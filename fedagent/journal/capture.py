"""A run's state as JSON and arrays: every object that can be reached, each one once.

What a run remembers is spread over some forty objects. Nobody lists their attributes here: all that
is reached from the root is state, unless its class says otherwise (``UNSAVED``, ``IS_LIVE``). So a
new attribute cannot be forgotten, and what cannot be saved is an error at the first checkpoint.
"""

import functools
import random
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent.errors import CheckpointError
from fedagent.journal.kinds import (
    PLAIN,
    SCALARS,
    Node,
    NotNow,
    Path,
    attributes_of,
    is_importable,
    is_live_kind,
    name_of,
)

RECORDS = (RecordDict, ArrayRecord, ConfigRecord, MetricRecord)


@dataclass
class Snapshot:
    """The state of a run at one moment.

    Attributes
    ----------
    tree : nodes, see `fedagent.journal.kinds`.
    arrays : (N,) uint8 each, what the nodes call by a number.
    live : for everything that is no state, the ways to it.
    """

    tree: Node = None
    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    live: list[list[Path]] = field(default_factory=list)

    def ways(self) -> set[Path]:
        """Return all ways to what is no state."""
        return {way for ways in self.live for way in ways}

    def require_ways(self, known: set[Path]) -> None:
        """Raise a `CheckpointError` for what is no state and on none of the `known` ways.

        A new process would not have it.
        """
        for ways in self.live:
            if not known.intersection(ways):
                raise CheckpointError(
                    f"A checkpoint cannot hold {told(ways)}: it is no state (a function, a lock or "
                    "the like), and came up during the run, so that a new process would not have "
                    "it. Set it before the run starts; see docs/reliability.md."
                )


def capture(root: object) -> Snapshot:
    """Return the state of `root` and of all that it reaches, which may change from now on.

    What can change is copied; bytes, as those of a version, never do.

    Raises
    ------
    CheckpointError
        If something is neither state nor live; the message says where it is.
    NotNow
        If something is under way that cannot be saved and will be over.
    """
    walk = _Capture()
    walk.snapshot.tree = walk.node(root, ())
    return walk.snapshot


class _Capture:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._seen: dict[int, tuple[object, Node]] = {}  # holds the objects: an id means one thing
        self._num_shared = 0

    def node(self, value: Any, path: Path) -> Node:
        """Return the node of a value."""
        if type(value) in PLAIN:
            return value
        if id(value) in self._seen:
            return self._again(self._seen[id(value)][1], path)
        node: dict[str, Any] = {}
        self._seen[id(value)] = value, node
        _way_of(type(value))(self, value, node, path)  # type: ignore[arg-type]  # a class is hashable
        return node

    def _again(self, node: Node, path: Path) -> Node:
        if "live" in node:
            self.snapshot.live[node["live"]].append(path)
        if "shared" not in node:
            node["shared"] = self._num_shared
            self._num_shared += 1
        return {"kind": "again", "shared": node["shared"]}

    def _nodes(self, values: Iterable[Any], path: Path) -> list[Node]:
        return [
            value if type(value) in PLAIN else self.node(value, _on(path, "item", index))
            for index, value in enumerate(values)
        ]

    def _pairs(self, items: Iterable[tuple[Any, Any]], path: Path) -> list[Node]:
        return [
            [self.node(key, None), self.node(value, _on(path, "item", key))] for key, value in items
        ]

    def _attributes(self, value: object, path: Path) -> dict[str, Node]:
        return {
            name: self.node(attribute, _on(path, "attribute", name))
            for name, attribute in attributes_of(value)
        }

    def _array(self, data: bytes | np.ndarray[Any, Any]) -> str:
        key = str(len(self.snapshot.arrays))
        self.snapshot.arrays[key] = np.frombuffer(data, np.uint8)
        return key

    # --- one method a kind --------------------------------------------------------------------

    def _live(self, value: object, node: Node, path: Path) -> None:
        node |= {"kind": "live", "live": len(self.snapshot.live)}
        self.snapshot.live.append([path])

    def _object(self, value: object, node: Node, path: Path) -> None:
        kind = type(value)
        if getattr(kind, "IS_PASSING", False):
            raise NotNow(kind.__name__)
        if not is_importable(kind) or not (
            hasattr(value, "__dict__") or hasattr(kind, "__slots__")
        ):
            raise CheckpointError(
                f"A checkpoint cannot hold {told([path])}, a {kind.__module__}."
                f"{kind.__qualname__}. If it is no state, let the class that holds it name it in "
                "UNSAVED; see docs/reliability.md."
            )
        node |= {"kind": "object", "class": name_of(kind)}
        node["attributes"] = self._attributes(value, path)

    def _tensor(self, value: torch.Tensor, node: Node, path: Path) -> None:
        flat = value.detach().cpu().contiguous().reshape(-1)
        plain = flat.view(torch.uint8).numpy().copy() if len(flat) else b""  # its strides may be 0
        node |= {"kind": "tensor", "dtype": str(value.dtype).removeprefix("torch.")}
        node |= {"device": str(value.device), "shape": [*value.shape], "array": self._array(plain)}

    def _ndarray(self, value: np.ndarray[Any, Any], node: Node, path: Path) -> None:
        node |= {"kind": "ndarray", "dtype": value.dtype.str, "shape": list(value.shape)}
        if value.dtype.hasobject:
            node["objects"] = self._nodes(value.reshape(-1).tolist(), None)
        else:
            node["array"] = self._array(value.tobytes())

    def _bytes(self, value: bytes, node: Node, path: Path) -> None:
        node |= {"kind": "bytes", "array": self._array(value)}

    def _flower_array(self, value: Array, node: Node, path: Path) -> None:
        # Without the pieces that Flower keeps of an array that it has sent.
        node |= {"kind": "flower.array", "shape": list(value.shape)}
        node |= {"dtype": value.dtype, "stype": value.stype}
        node["array"] = self._array(bytes(value.data))

    def _scalar(self, value: Any, node: Node, path: Path) -> None:
        if isinstance(value, np.dtype):
            node |= {"kind": "dtype", "name": value.str}
        else:
            node |= {"kind": "scalar", "dtype": value.dtype.str, "hex": value.tobytes().hex()}

    def _torch_word(self, value: object, node: Node, path: Path) -> None:
        is_dtype = isinstance(value, torch.dtype)
        node |= {"kind": "torch.dtype" if is_dtype else "torch.device"}
        node["name"] = str(value).removeprefix("torch.")

    def _enum(self, value: Enum, node: Node, path: Path) -> None:
        node |= {"kind": "enum", "class": name_of(type(value)), "name": value.name}

    def _path(self, value: PurePath, node: Node, path: Path) -> None:
        node |= {"kind": "path", "name": str(value)}

    def _range(self, value: range, node: Node, path: Path) -> None:
        node |= {"kind": "range", "of": [value.start, value.stop, value.step]}

    def _random(self, value: random.Random, node: Node, path: Path) -> None:
        node |= {"kind": "random", "state": self.node(value.getstate(), None)}

    def _generator(self, value: np.random.Generator, node: Node, path: Path) -> None:
        node |= {"kind": "generator", "state": self.node(value.bit_generator.state, None)}

    def _torch_generator(self, value: torch.Generator, node: Node, path: Path) -> None:
        node |= {"kind": "torch.generator", "state": self.node(value.get_state(), None)}

    def _with_state_dict(self, value: Any, node: Node, path: Path) -> None:
        self._live(value, node, path)
        node |= {"kind": "state_dict", "state": self.node(dict(value.state_dict()), None)}

    def _named(self, value: Any, node: Node, path: Path) -> None:
        if is_importable(value):
            node |= {"kind": "named", "name": name_of(value)}
        else:
            self._live(value, node, path)

    def _method(self, value: types.MethodType, node: Node, path: Path) -> None:
        node |= {"kind": "method", "name": value.__func__.__name__}
        node["of"] = self.node(value.__self__, _on(path, "attribute", "__self__"))

    def _partial(self, value: functools.partial[Any], node: Node, path: Path) -> None:
        node |= {
            "kind": "partial",
            "function": self.node(value.func, _on(path, "attribute", "func")),
        }
        node["arguments"] = self._nodes(value.args, _on(path, "attribute", "args"))
        node["keywords"] = self._pairs(value.keywords.items(), _on(path, "attribute", "keywords"))

    def _record(self, value: Any, node: Node, path: Path) -> None:
        node |= {"kind": "record", "class": name_of(type(value))}
        node["items"] = self._pairs(value.items(), None)

    def _dict(self, value: dict[Any, Any], node: Node, path: Path) -> None:
        node |= {"kind": "dict", "class": name_of(type(value))}
        node["items"] = self._pairs(value.items(), path)
        if isinstance(value, defaultdict):
            node["factory"] = self.node(
                value.default_factory, _on(path, "attribute", "default_factory")
            )
        if type(value) not in (dict, OrderedDict):
            node["attributes"] = self._attributes(value, path)

    def _mapping(self, value: types.MappingProxyType[Any, Any], node: Node, path: Path) -> None:
        node |= {"kind": "mappingproxy", "items": self._pairs(value.items(), path)}

    def _list(self, value: Any, node: Node, path: Path) -> None:
        node |= {"kind": "list", "class": name_of(type(value)), "items": self._nodes(value, path)}
        if isinstance(value, deque):
            node["maxlen"] = value.maxlen

    def _set(self, value: Any, node: Node, path: Path) -> None:
        node |= {"kind": "list", "class": name_of(type(value)), "items": self._nodes(value, None)}


def told(ways: list[Path]) -> str:
    """Return the first of some ways as one would write it in Python."""
    way = next((way for way in ways if way), ())
    parts = [f".{name}" if step == "attribute" else f"[{name!r}]" for step, name in way]
    return "".join(parts) or "something that is reached through no name"


def _on(path: Path, step: str, name: Any) -> Path:
    if path is None or (type(name) not in PLAIN):
        return None
    return (*path, (step, name))


_Way = Callable[[_Capture, Any, dict[str, Any], Path], None]

_WAYS: list[tuple[tuple[type, ...], _Way]] = [
    ((dict,), _Capture._dict),
    ((list, tuple, deque), _Capture._list),
    ((set, frozenset), _Capture._set),
    ((Enum,), _Capture._enum),
    (SCALARS, _Capture._scalar),
    ((torch.nn.Module, torch.optim.Optimizer), _Capture._with_state_dict),
    ((torch.Tensor,), _Capture._tensor),
    ((torch.dtype, torch.device), _Capture._torch_word),
    ((np.ndarray,), _Capture._ndarray),
    ((bytes,), _Capture._bytes),
    ((Array,), _Capture._flower_array),
    ((random.Random,), _Capture._random),
    ((np.random.Generator,), _Capture._generator),
    ((torch.Generator,), _Capture._torch_generator),
    (RECORDS, _Capture._record),
    ((types.MappingProxyType,), _Capture._mapping),
    ((range,), _Capture._range),
    ((PurePath,), _Capture._path),
    ((functools.partial,), _Capture._partial),
    ((types.MethodType,), _Capture._method),
    ((type, types.FunctionType, types.BuiltinFunctionType), _Capture._named),
]


@functools.cache
def _way_of(kind: type) -> _Way:
    """Return how objects of a class are captured."""
    if is_live_kind(kind):
        return _Capture._live
    return next((way for kinds, way in _WAYS if issubclass(kind, kinds)), _Capture._object)
