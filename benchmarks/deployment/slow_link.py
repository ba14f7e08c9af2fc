"""A TCP relay that lets only so many bytes per second through: a slow link without root."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK_BYTES = 4_096


@contextmanager
def slow_link(port: int, bytes_per_s: float) -> Iterator[int]:
    """Relay a local port's connections, each direction of the whole link at `bytes_per_s`.

    Yields the port to connect to.
    """
    links = (_Link(bytes_per_s), _Link(bytes_per_s))  # up, down
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, port, links), daemon=True).start()
        yield server.getsockname()[1]


class _Link:
    """One direction: whoever sends waits for its turn."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0
        self._lock = threading.Lock()

    def wait_for(self, num_bytes: int) -> None:
        """Return when so many bytes are through."""
        with self._lock:
            self._free_at_s = max(time.monotonic(), self._free_at_s) + num_bytes / self._bytes_per_s
            wait_s = self._free_at_s - time.monotonic()
        time.sleep(max(0.0, wait_s))


def _accept(server: socket.socket, port: int, links: tuple[_Link, _Link]) -> None:
    while True:
        try:
            near, _ = server.accept()
        except OSError:  # the server has been closed
            return
        far = socket.create_connection(("127.0.0.1", port))
        for source, sink, link in ((near, far, links[0]), (far, near, links[1])):
            threading.Thread(target=_relay, args=(source, sink, link), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket, link: _Link) -> None:
    try:
        while data := source.recv(_CHUNK_BYTES):
            link.wait_for(len(data))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # either end has gone, and so the other goes
        source.close()
        sink.close()
