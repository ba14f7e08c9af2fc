"""The only truth about what was asked: dispatches in flight and the versions they started from."""

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, ClassVar

import torch
from flwr.app import Message

from fedagent.model import Vector
from fedagent.update import Dispatch, Group, Kind


@dataclass(slots=True, eq=False, weakref_slot=True)
class Version:
    """A published model, which never changes.

    Attributes
    ----------
    number : how many versions were published before it; 0 is the initial model.
    vector : (P,) float parameters; those of the proxy are views of the payload's bytes.
    payload : the version as the transport sends it; not part of the ledger's state, because it
        follows from the rest.
    carried : integer and boolean buffers by name.
    source : of a model that a rule keeps for some nodes, the tensor it was made of.
    """

    UNSAVED: ClassVar = ("vector", "source")

    number: int
    vector: Vector
    payload: Any
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)
    source: torch.Tensor | None = field(default=None, repr=False)
    _references: int = field(default=0, repr=False)


class _Awaited(Set[str]):
    """Every id that some of the tables know: a view, however many there are."""

    def __init__(self, *tables: Mapping[str, Dispatch]) -> None:
        self._tables = tables

    def __contains__(self, message_id: object) -> bool:
        return any(message_id in table for table in self._tables)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._tables)

    def __len__(self) -> int:
        return sum(map(len, self._tables))


class Ledger:
    """In-flight table and base versions, reference counted.

    A version lives while it is the newest or while something in flight started from it. A reply
    settles its dispatch exactly once; what the client says about its base version is never used.
    """

    def __init__(self) -> None:
        # Ordered, because a plain dict looks for its first entry among all that were deleted.
        self._in_flight: OrderedDict[str, Dispatch] = OrderedDict()
        self._due: list[tuple[float, str]] = []
        self._overdue: dict[str, Dispatch] = {}
        self._own_bases: dict[str, Version] = {}
        self._held: OrderedDict[int, tuple[str, Version]] = OrderedDict()
        self._versions: dict[int, Version] = {}
        self.current: Version | None = None

    def publish(self, version: Version) -> None:
        """Make `version` the newest; forget the previous one unless it is in use."""
        if version.number in self._versions:
            raise ValueError(f"Version {version.number} is already published.")
        previous, self.current = self.current, version
        self._versions[version.number] = version
        if previous is not None:
            self._release(previous)

    def open(self, dispatch: Dispatch, base: Version | None = None) -> None:
        """Record a dispatch of a living version, or of a model `base` that only its node got."""
        if dispatch.message_id in self._in_flight:
            raise ValueError(f"Message id {dispatch.message_id!r} is already in flight.")
        self._versions[dispatch.version]._references += 1
        self._in_flight[dispatch.message_id] = dispatch
        heapq.heappush(self._due, (dispatch.deadline_s, dispatch.message_id))
        if base is not None:
            self._own_bases[dispatch.message_id] = base

    def get(self, message_id: str) -> Dispatch | None:
        """Return the dispatch in flight under this id, or None."""
        return self._in_flight.get(message_id)

    def work_in(self, replies: Iterable[Message]) -> list[Message]:
        """Return the replies that answer train dispatches in flight."""
        asked = [(self._in_flight.get(r.metadata.reply_to_message_id), r) for r in replies]
        return [reply for dispatch, reply in asked if dispatch and dispatch.kind is Kind.TRAIN]

    def base(self, dispatch: Dispatch) -> Version:
        """Return the model that a dispatch in flight started from."""
        return self._own_bases.get(dispatch.message_id) or self._versions[dispatch.version]

    def has_own_base(self, dispatch: Dispatch) -> bool:
        """Whether a dispatch in flight started from a model that only its node got."""
        return dispatch.message_id in self._own_bases

    def staleness(self, dispatch: Dispatch, newest: int | None = None) -> int:
        """Return tau: versions published since the dispatch.

        For a model that only its node got, `newest` is the number that model has by now.
        """
        assert self.current is not None
        own = self._own_bases.get(dispatch.message_id)
        if own is None or newest is None:
            return self.current.number - dispatch.version
        return max(0, newest - own.number)  # a rule whose work was undone counts anew

    def hold(self, node_id: int, token: str, version: Version, limit: int) -> None:
        """Note that a node holds a model, the one it got with the job of `token`.

        Of more than `limit` nodes, the one of which this was said longest ago is forgotten.
        """
        self._held[node_id] = token, version
        self._held.move_to_end(node_id)
        if len(self._held) > limit:
            self._held.popitem(last=False)

    def held(self, node_id: int) -> tuple[str, Version] | None:
        """Return the model that a node is known to hold, and the token of its job."""
        return self._held.get(node_id)

    def release_held(self, node_id: int) -> None:
        """Note that nobody knows what a node holds."""
        self._held.pop(node_id, None)

    def settle(self, message_id: str) -> Dispatch:
        """Close a dispatch; a second time raises KeyError."""
        dispatch = self._in_flight.pop(message_id)
        self._own_bases.pop(message_id, None)
        version = self._versions[dispatch.version]
        version._references -= 1
        self._release(version)
        return dispatch

    def expire(self, message_id: str) -> Dispatch:
        """Close a dispatch whose node may still be busy with it: `late` knows it from now on."""
        dispatch = self.settle(message_id)
        self._overdue[message_id] = dispatch
        return dispatch

    def late(self, message_id: str) -> Dispatch | None:
        """Return, once, the expired dispatch that this id belongs to."""
        return self._overdue.pop(message_id, None)

    def awaited(self) -> Set[str]:
        """Return every id a reply may still come for, late ones included: a view, not a copy."""
        return _Awaited(self._in_flight, self._overdue)

    def in_flight(self) -> Iterator[Dispatch]:
        """Iterate over a snapshot of the dispatches in flight, oldest first."""
        return iter(list(self._in_flight.values()))

    def first_due(self) -> Dispatch | None:
        """Return the dispatch in flight with the earliest deadline, or None."""
        if len(self._due) > 2 * len(self._in_flight) + 64:  # most are settled
            self._due = [(d.deadline_s, i) for i, d in self._in_flight.items()]
            heapq.heapify(self._due)
        while self._due and self._due[0][1] not in self._in_flight:
            heapq.heappop(self._due)
        return self._in_flight[self._due[0][1]] if self._due else None

    def bases(self) -> Iterator[Version]:
        """Iterate over all models that are alive, those that only one node got or holds too."""
        held = (version for _, version in self._held.values())
        return chain(self._versions.values(), self._own_bases.values(), held)

    def versions(self) -> list[int]:
        """Return the numbers of the versions that are alive."""
        return sorted(self._versions)

    def __len__(self) -> int:
        return len(self._in_flight)

    def state_dict(self) -> dict[str, Any]:
        """Return everything asked and not settled, and the versions it started from."""
        return {
            "current": None if self.current is None else self.current.number,
            "versions": [_plain(v) for v in self._versions.values()],
            "own_bases": {i: _plain(v) for i, v in self._own_bases.items()},
            "held": [(n, token, _plain(v)) for n, (token, v) in self._held.items()],
            "in_flight": [asdict(d) for d in self._in_flight.values()],
            "overdue": [asdict(d) for d in self._overdue.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, payloads excepted."""
        self._versions = {v["number"]: _version(v) for v in state["versions"]}
        self._own_bases = {i: _version(v) for i, v in state["own_bases"].items()}
        self._held = OrderedDict((n, (token, _version(v))) for n, token, v in state["held"])
        self._in_flight, self._due, self._overdue = OrderedDict(), [], {}
        for fields in state["in_flight"]:
            self.open(_dispatch(fields))
        for fields in state["overdue"]:
            self._overdue[fields["message_id"]] = _dispatch(fields)
        self.current = None if state["current"] is None else self._versions[state["current"]]

    def _release(self, version: Version) -> None:
        if version is not self.current and version._references == 0:
            del self._versions[version.number]


def _plain(version: Version) -> dict[str, Any]:
    vector = version.vector.clone()
    return {"number": version.number, "vector": vector, "carried": dict(version.carried)}


def _version(fields: Mapping[str, Any]) -> Version:
    return Version(fields["number"], fields["vector"], None, fields["carried"])


def _dispatch(fields: Mapping[str, Any]) -> Dispatch:
    group = fields["group"] and Group(**fields["group"])
    return Dispatch(**{**fields, "kind": Kind(fields["kind"]), "group": group})
