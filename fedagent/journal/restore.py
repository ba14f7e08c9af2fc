"""The way back: a checkpoint's state is put into the objects that a new process has built.

An object that is there already, under the same name in the same kind of object, is filled in place,
so that whoever else holds it sees the change. What is not there is made without its constructor.
"""

import functools
import random
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from flwr.app import Array

from fedagent.errors import CheckpointError
from fedagent.journal.capture import Snapshot, told
from fedagent.journal.kinds import (
    PLAIN,
    Node,
    Path,
    attributes_of,
    is_cached,
    is_frozen,
    named,
    unsaved_of,
)

_MISSING = object()


def restore(snapshot: Snapshot, root: object) -> None:
    """Put the state into `root` and all that it reaches.

    Objects with a method ``after_restore`` are told when everything is there, in the order in
    which they were captured.

    Raises
    ------
    CheckpointError
        If the checkpoint is of something else than `root`.
    """
    walk = _Restore(snapshot, root)
    if walk.value(snapshot.tree, root) is not root:
        raise CheckpointError(f"The checkpoint is not of a {type(root).__name__}.")
    for restored in walk.objects:
        if hasattr(type(restored), "after_restore"):
            restored.after_restore()


class _Restore:
    def __init__(self, snapshot: Snapshot, root: object) -> None:
        self._arrays = snapshot.arrays
        self._live = [_found(paths, root) for paths in snapshot.live]
        self._shared: dict[int, Any] = {}
        self._filled: set[int] = set()
        self.objects: list[Any] = []

    def value(self, node: Node, fresh: Any = _MISSING) -> Any:
        """Return the value of a node; `fresh` is what is in its place now."""
        if type(node) in PLAIN:
            return node
        if node["kind"] == "again":
            return self._shared[node["shared"]]
        value = _WAYS[node["kind"]](self, node, fresh)
        return self._made(node, value)

    def _made(self, node: Node, value: Any) -> Any:
        if "shared" in node:
            self._shared[node["shared"]] = value
        return value

    def _values(self, nodes: Iterable[Node], fresh: Any = ()) -> list[Any]:
        there = fresh if isinstance(fresh, list | tuple) else ()
        return [
            self.value(node, there[index] if index < len(there) else _MISSING)
            for index, node in enumerate(nodes)
        ]

    def _pairs(self, nodes: Iterable[Node], fresh: Any = _MISSING) -> Iterable[tuple[Any, Any]]:
        there = fresh if isinstance(fresh, Mapping) else {}
        for key_node, node in nodes:
            key = self.value(key_node)
            yield key, self.value(node, there.get(key, _MISSING))

    # --- objects ------------------------------------------------------------------------------

    def _object(self, node: Node, fresh: Any) -> Any:
        kind = named(node["class"])
        is_there = type(fresh) is kind and id(fresh) not in self._filled
        if is_frozen(kind):
            return self._frozen(kind, node, fresh if is_there else _MISSING)
        value = fresh if is_there else object.__new__(kind)
        self._filled.add(id(value))
        self.objects.append(value)
        self._made(node, value)
        before = dict(attributes_of(value)) if is_there else {}
        for name in before.keys() - node["attributes"].keys():
            object.__delattr__(value, name)
        self._fill(value, node["attributes"], before)
        return value

    def _fill(self, value: Any, nodes: Mapping[str, Node], before: Mapping[str, Any]) -> None:
        for name in [n for n in getattr(value, "__dict__", ()) if is_cached(type(value), n)]:
            object.__delattr__(value, name)
        for name, node in nodes.items():
            attribute = self.value(node, before.get(name, _MISSING))
            object.__setattr__(value, name, attribute)

    def _frozen(self, kind: type, node: Node, fresh: Any) -> Any:
        """Return `fresh` if it is the same value, otherwise a new one."""
        before = {} if fresh is _MISSING else dict(attributes_of(fresh))
        after = {
            name: self.value(child, before.get(name, _MISSING))
            for name, child in node["attributes"].items()
        }
        if before.keys() == after.keys() and all(_is_same(before[n], after[n]) for n in after):
            value = fresh
        else:
            value = object.__new__(kind)
            kept = () if fresh is _MISSING else unsaved_of(kind)
            for name in kept:
                object.__setattr__(value, name, getattr(fresh, name))
            for name, attribute in after.items():
                object.__setattr__(value, name, attribute)
        self.objects.append(value)
        return value

    # --- one method a kind --------------------------------------------------------------------

    def _list(self, node: Node, fresh: Any) -> Any:
        kind = named(node["class"])
        if kind is list or kind is deque:
            made: Any = [] if kind is list else deque(maxlen=node["maxlen"])
            self._made(node, made)
            made.extend(self._values(node["items"], fresh))
            return made
        items = self._values(node["items"], fresh)
        return kind._make(items) if hasattr(kind, "_make") else kind(items)

    def _dict(self, node: Node, fresh: Any) -> Any:
        kind = named(node["class"])
        made: Any = kind.__new__(kind)
        self._made(node, made)
        if isinstance(made, defaultdict):
            made.default_factory = self.value(
                node["factory"], getattr(fresh, "default_factory", _MISSING)
            )
        base: Any = OrderedDict if issubclass(kind, OrderedDict) else dict
        for key, value in self._pairs(node["items"], fresh):
            base.__setitem__(made, key, value)  # a class's own one may count, or forget
        if "attributes" in node:
            self._fill(made, node["attributes"], getattr(fresh, "__dict__", {}))
        return made

    def _mapping(self, node: Node, fresh: Any) -> Any:
        return types.MappingProxyType(dict(self._pairs(node["items"], fresh)))

    def _record(self, node: Node, fresh: Any) -> Any:
        record = named(node["class"])()
        self._made(node, record)
        for key, value in self._pairs(node["items"]):
            record[key] = value
        return record

    def _tensor(self, node: Node, fresh: Any) -> Any:
        array = self._arrays[node["array"]].copy()
        dtype, shape, device = getattr(torch, node["dtype"]), node["shape"], node["device"]
        if not len(array):  # of nothing strides may be anything
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.from_numpy(array).view(dtype).reshape(shape).to(device)

    def _ndarray(self, node: Node, fresh: Any) -> Any:
        if "objects" in node:
            made = np.empty(len(node["objects"]), object)
            made[:] = self._values(node["objects"])
            return made.reshape(node["shape"])
        array = self._arrays[node["array"]].copy()
        return array.view(np.dtype(node["dtype"])).reshape(node["shape"])

    def _state_dict(self, node: Node, fresh: Any) -> Any:
        value = self._live[node["live"]]
        value.load_state_dict(self.value(node["state"]))
        return value

    def _method(self, node: Node, fresh: Any) -> Any:
        return getattr(self.value(node["of"], getattr(fresh, "__self__", _MISSING)), node["name"])

    def _partial(self, node: Node, fresh: Any) -> Any:
        there = fresh if isinstance(fresh, functools.partial) else functools.partial(int)
        return functools.partial(
            self.value(node["function"], there.func),
            *self._values(node["arguments"], there.args),
            **dict(self._pairs(node["keywords"], there.keywords)),
        )

    def _random(self, node: Node, fresh: Any) -> Any:
        generator = fresh if type(fresh) is random.Random else random.Random()
        generator.setstate(self.value(node["state"]))
        return generator

    def _generator(self, node: Node, fresh: Any) -> Any:
        state = self.value(node["state"])
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        generator.bit_generator.state = state
        return generator

    def _torch_generator(self, node: Node, fresh: Any) -> Any:
        generator = torch.Generator()
        generator.set_state(self.value(node["state"]))
        return generator

    def _flower_array(self, node: Node, fresh: Any) -> Any:
        data = self._arrays[node["array"]].tobytes()
        return Array(node["dtype"], tuple(node["shape"]), node["stype"], data)

    def _scalar(self, node: Node, fresh: Any) -> Any:
        return np.frombuffer(bytes.fromhex(node["hex"]), node["dtype"])[0]


_WAYS: dict[str, Any] = {
    "object": _Restore._object,
    "list": _Restore._list,
    "dict": _Restore._dict,
    "mappingproxy": _Restore._mapping,
    "record": _Restore._record,
    "tensor": _Restore._tensor,
    "ndarray": _Restore._ndarray,
    "state_dict": _Restore._state_dict,
    "method": _Restore._method,
    "partial": _Restore._partial,
    "random": _Restore._random,
    "generator": _Restore._generator,
    "torch.generator": _Restore._torch_generator,
    "scalar": _Restore._scalar,
    "flower.array": _Restore._flower_array,
    "live": lambda self, node, fresh: self._live[node["live"]],
    "named": lambda self, node, fresh: named(node["name"]),
    "bytes": lambda self, node, fresh: self._arrays[node["array"]].tobytes(),
    "dtype": lambda self, node, fresh: np.dtype(node["name"]),
    "torch.dtype": lambda self, node, fresh: getattr(torch, node["name"]),
    "torch.device": lambda self, node, fresh: torch.device(node["name"]),
    "enum": lambda self, node, fresh: named(node["class"])[node["name"]],
    "path": lambda self, node, fresh: FilePath(node["name"]),
    "range": lambda self, node, fresh: range(*node["of"]),
}


def _is_same(before: Any, after: Any) -> bool:
    return before is after or (type(before) is type(after) in PLAIN and before == after)


def _found(paths: list[Path], root: object) -> Any:
    """Return what is at the first of some ways from the root that leads anywhere."""
    for path in paths:
        value: Any = root if path is not None else _MISSING
        for step, name in path or ():
            value = _next(value, step, name)
        if value is not _MISSING:
            return value
    raise CheckpointError(
        f"The checkpoint needs what this run does not have: {told(paths)}. A run goes on with "
        "the strategy, the options and the callbacks that it began with."
    )


def _next(value: Any, step: str, name: Any) -> Any:
    if step == "attribute":
        attributes = getattr(value, "__dict__", {})
        return attributes[name] if name in attributes else getattr(value, name, _MISSING)
    try:
        return value[name]
    except (KeyError, IndexError, TypeError):
        return _MISSING
