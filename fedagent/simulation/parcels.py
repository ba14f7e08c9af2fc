"""Objects between processes, their arrays through shared memory.

A parcel is a pickle without the bytes of its arrays, and a plan that says where each of them is:

    (offset, length)   in the memory that both processes map, if there is one and they fit
    index              the same bytes as array `index` of this parcel and the one before, in a row:
                       a version goes to a worker once, although it goes to many of its nodes
    bytes              here
"""

import io
import mmap
import pickle
from multiprocessing.connection import Connection
from typing import Any

from flwr.app import Array

_SLOT_BYTES = 2 << 30  # of address space: pages that nobody writes to take no memory
_SLOTS = 2
_NORESERVE = 0x4000  # Linux: mmap.MAP_NORESERVE, which Python names from 3.12 on

Plan = list[tuple[int, int] | int | bytes]


def shared_memory() -> mmap.mmap | None:
    """Return memory for the parcels of one pipe that forked children share, or None.

    It has no name, so nothing is left behind whoever is killed.
    """
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        return mmap.mmap(-1, 2 * _SLOTS * _SLOT_BYTES, flags)
    except OSError:  # a system that promises no more memory than it has
        return None


class Post:
    """One end of a pipe.

    Slots of the memory are taken in turn, so at most two parcels of each direction may be under
    way that the other end has not opened.

    Parameters
    ----------
    connection : of `multiprocessing.Pipe`.
    memory : what `shared_memory` returned before the fork; None sends all in the pipe.
    side : 0 at one end, 1 at the other.
    """

    def __init__(self, connection: Connection, memory: mmap.mmap | None, side: int) -> None:
        self.connection = connection
        self._memory, self._side = memory, side
        self._num_sent = 0
        self._sent: list[bytes] = []
        self._received: list[bytes] = []

    def send(self, content: object) -> None:
        """Send an object; what cannot be pickled raises before anything is sent."""
        stream = io.BytesIO()
        pickler = _Pickler(stream)
        pickler.dump(content)
        known = {id(data): index for index, data in enumerate(self._sent)}
        slot = self._side * _SLOTS + self._num_sent % _SLOTS
        begin, end = slot * _SLOT_BYTES, (slot + 1) * _SLOT_BYTES
        plan: Plan = []
        for data in pickler.arrays:
            if id(data) in known:
                plan.append(known[id(data)])
            elif self._memory is not None and begin + len(data) <= end:
                self._memory[begin : begin + len(data)] = data
                plan.append((begin, len(data)))
                begin += len(data)
            else:
                plan.append(data)
            known.setdefault(id(data), len(self._sent) + len(plan) - 1)
        self._num_sent += 1
        self._sent = pickler.arrays
        self.connection.send((stream.getvalue(), plan))

    def receive(self) -> Any:
        """Wait for the next object; EOFError or OSError if the other end is gone."""
        content, plan = self.connection.recv()
        before = len(self._received)
        for place in plan:
            self._received.append(self._fetch(place))
        del self._received[:before]
        return pickle.loads(content, buffers=self._received)

    def _fetch(self, place: tuple[int, int] | int | bytes) -> bytes:
        if isinstance(place, bytes):
            return place
        if isinstance(place, int):
            return self._received[place]
        assert self._memory is not None
        begin, length = place
        return self._memory[begin : begin + length]


class _Pickler(pickle.Pickler):
    """Pickles arrays without their bytes, which it collects in `arrays`."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5, buffer_callback=lambda buffer: False)
        self.arrays: list[bytes] = []

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, Array):
            return NotImplemented
        self.arrays.append(obj.data)
        return _array, (obj.dtype, obj.shape, obj.stype, pickle.PickleBuffer(obj.data))


def _array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> Array:
    return Array(dtype, tuple(shape), stype, data)
