"""Objects between two processes, through memory that both map.

A transfer is a pickle without the bytes of its arrays, and a plan that says where each of them is:

    (offset, length)   in the memory
    index              the same bytes as array `index` of the transfer before and this one, in a
                       row: a version goes to a worker once, although it goes to many of its nodes
    bytes              here, if there is no memory

All of it is in the memory; the pipe says where. So the pipe never fills up, and no end waits for
the other to read.
"""

import io
import mmap
import pickle
from multiprocessing.connection import Connection
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent._flower import array_of, entries_of, record_of
from fedagent.errors import FedagentError
from fedagent.wire.npy import QuickArray

_SLOT_BYTES = 16 << 30  # of address space: pages never written to take no memory
_SLOTS = 4
_NORESERVE = 0x4000  # Linux: mmap.MAP_NORESERVE, which Python names from 3.12 on

Plan = list[tuple[int, int] | int | bytes]


def shared_memory() -> mmap.mmap | None:
    """Return memory for the transfers of one pipe that forked children share, or None.

    It has no name, so nothing is left behind by a process that is killed.
    """
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        return mmap.mmap(-1, 2 * _SLOTS * _SLOT_BYTES, flags)
    except OSError:  # a system that promises no more memory than it has
        return None


class SharedMemoryChannel:
    """One end of a pipe.

    Attributes
    ----------
    capacity : transfers that may be under way in each direction and not yet opened. Slots of the
        memory are taken in turn; without memory transfers are as large as their arrays, and two
        that meet in the pipe would wait for each other.

    Parameters
    ----------
    connection : of `multiprocessing.Pipe`.
    memory : what `shared_memory` returned before the fork; None sends all in the pipe.
    side : 0 at one end, 1 at the other.
    """

    def __init__(self, connection: Connection, memory: mmap.mmap | None, side: int) -> None:
        self.connection = connection
        self.capacity = 1 if memory is None else _SLOTS
        self._memory, self._side = memory, side
        self._num_sent = 0
        self._sent: list[bytes] = []
        self._received: list[bytes] = []

    def send(self, content: object) -> None:
        """Send an object.

        What cannot be pickled raises before anything is sent, and so does, with `FedagentError`,
        what is larger than a slot.
        """
        body, arrays = pickled(content)
        slot = _Slot(self._memory, self._side * _SLOTS + self._num_sent % _SLOTS)
        known = {id(data): index for index, data in enumerate(self._sent)}
        plan: Plan = []
        for data in arrays:
            plan.append(known[id(data)] if id(data) in known else slot.put(data))
            known.setdefault(id(data), len(self._sent) + len(plan) - 1)
        transfer = slot.put(pickle.dumps((body, plan)))
        self._num_sent += 1
        self._sent = arrays
        self.connection.send_bytes(pickle.dumps(transfer))  # `send` makes a pickler anew, for 6 us

    def receive(self) -> Any:
        """Wait for the next object; EOFError or OSError if the other end is gone."""
        content, plan = pickle.loads(self._fetch(pickle.loads(self.connection.recv_bytes())))
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


class _Slot:
    """A part of the memory that is filled from its beginning."""

    def __init__(self, memory: mmap.mmap | None, index: int) -> None:
        self._memory = memory
        self._begin, self._end = index * _SLOT_BYTES, (index + 1) * _SLOT_BYTES

    def put(self, data: bytes) -> tuple[int, int] | bytes:
        """Return where `data` now is."""
        if self._memory is None:
            return data
        begin, self._begin = self._begin, self._begin + len(data)
        if self._begin > self._end:
            raise FedagentError(
                f"A message between the simulation and its workers is larger than {_SLOT_BYTES} "
                "bytes; use workers=0."
            )
        self._memory[begin : self._begin] = data
        return begin, len(data)


def pickled(content: object) -> tuple[bytes, list[bytes]]:
    """Return a pickle of `content` without the bytes of its arrays, and those, as its buffers."""
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(content)
    return stream.getvalue(), [_whole(buffer.raw()) for buffer in buffers]


def _whole(view: memoryview) -> bytes:
    """Return the very bytes that were pickled, by which they are known; a copy of anything else."""
    data = view.obj
    return data if type(data) is bytes and len(data) == view.nbytes else view.tobytes()


def _reduced(content: RecordDict) -> tuple[Any, ...]:
    return _content, ([(name, *_taken_apart(record)) for name, record in content.items()],)


def _taken_apart(record: Any) -> tuple[type | None, Any]:
    kind = type(record)
    if kind is ArrayRecord:
        return kind, {name: _parts(array) for name, array in entries_of(record).items()}
    if kind in (ConfigRecord, MetricRecord):
        return kind, entries_of(record)
    return None, record  # of a kind of the user's own


def _content(apart: list[tuple[str, Any, Any]]) -> RecordDict:
    return record_of(RecordDict, {name: _put_together(kind, rest) for name, kind, rest in apart})


def _put_together(kind: Any, rest: Any) -> Any:
    if kind is ArrayRecord:
        return record_of(kind, {name: _array(parts) for name, parts in rest.items()})
    return rest if kind is None else record_of(kind, rest)


def _parts(array: Array) -> Any:
    if type(array) not in (Array, QuickArray):
        return array
    return array.dtype, array.shape, array.stype, pickle.PickleBuffer(array.data)


def _array(parts: Any) -> Array:
    # What arrives belongs to its receiver, which reads it faster as a `QuickArray`.
    return array_of(QuickArray, *parts) if type(parts) is tuple else parts


class _Pickler(pickle.Pickler):
    """Pickles a message's content at once, without its checks, and arrays without their bytes.

    Each record and array by itself would be a call of Python from the C code that pickles, which
    takes longer than to pickle it.
    """

    dispatch_table = {RecordDict: _reduced}  # noqa: RUF012  (as `pickle` wants it)
