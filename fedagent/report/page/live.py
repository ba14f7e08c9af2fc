"""The page of a run that goes on, for a browser on this machine: read-only, over its files alone.

It is served by a process of its own, so that neither drawing nor 200 slow readers cost the run
anything, and it may be killed at any time.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedagent import formatting
from fedagent.errors import ConfigurationError, FedagentError
from fedagent.report.page import look, progress, sections
from fedagent.report.page.data import read
from fedagent.report.page.document import Page, html_of, page_of

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
EVERY_S = 2.0
"""How old an answer may be; of a run that takes long to read, ten times as long as that takes."""
MOST_READERS = 64
PATIENCE_S = 20.0
"""How long a reader may take for an answer."""
LAST_S = 3.0
"""How long the server outlives its run, for browsers to hear of the end."""


_NO_RUN = Page("no run yet", {}, "")


class LiveView:
    """What is served of one run; drawn when somebody asks, and no more often than makes sense.

    Parameters
    ----------
    directory : the run's folder; it may be empty as yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._page: Page | None = None
        self._html: bytes | None = None
        self._extra = ""
        self._data = b"{}"
        self._fresh_until_s = 0.0

    def html(self) -> bytes:
        """Return the page."""
        with self._lock:
            self._draw()
            if self._html is None:
                script = (Path(__file__).parent / "live.js").read_text(encoding="utf-8")
                extra = f'<div id="live">{self._extra}</div>'
                self._html = html_of(self._page or _NO_RUN, extra, script).encode()
            return self._html

    def data(self) -> bytes:
        """Return what changes of it, as JSON."""
        with self._lock:
            self._draw()
            return self._data

    def _draw(self) -> None:
        if time.monotonic() < self._fresh_until_s:
            return
        begun_s = time.monotonic()
        self._html = None
        try:
            run = read(self._directory, with_jobs=True)
        except ConfigurationError as error:
            self._page, self._extra = (
                None,
                sections.section("No run yet", f"<p>{sections.escaped(error)}</p>"),
            )
            told: dict[str, Any] = {"shape": "", "sources": {}, "cards": ""}
        else:
            self._page = page_of([run])
            self._extra = progress.progress(run)
            told = {
                "shape": shape_of(self._page),
                "sources": sources_of(self._page),
                "cards": sections.cards(run),
                "nodes": progress.nodes(run),
            }
        told |= {"live": self._extra, "log": progress.log_tail(self._directory)}
        self._data = formatting.to_json(told).encode()
        took_s = time.monotonic() - begun_s
        self._fresh_until_s = time.monotonic() + max(EVERY_S, 10 * took_s)


def sources_of(page: Page) -> dict[str, dict[str, list[Any]]]:
    """Return the columns of all named sources of a page."""
    kind = look.bokeh("models").ColumnDataSource
    found = {one for chart in page.charts.values() for one in chart.references()}
    sources = [one for one in found if isinstance(one, kind) and one.name]
    return {one.name: {k: _plain(v) for k, v in one.data.items()} for one in sources}


def shape_of(page: Page) -> str:
    """Return what a page must be loaded anew for: its charts, their axes and rows."""
    told = []
    for name, chart in page.charts.items():
        if hasattr(chart, "x_range"):
            ranges = [getattr(r, "factors", None) for r in (chart.x_range, chart.y_range)]
            axes = [axis.axis_label for axis in chart.axis]
            rows = chart.y_range.end if chart.name == "timeline" else None
            kinds = len(chart.legend[0].items) if chart.legend else 0
            told.append([name, ranges, axes, rows, kinds])
    return json.dumps(told)


def serve(view: LiveView, listening: socket.socket, until: Callable[[], object]) -> None:
    """Answer on a socket that listens, until `until` returns; then for three seconds more."""
    server = _Server(view, listening)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        until()
        time.sleep(LAST_S)
    finally:
        server.shutdown()
        server.server_close()


def watch(directory: Path, port: int, fd: int | None = None) -> None:
    """Serve a run's page until Ctrl-C, or beside a run until its process lets go.

    Parameters
    ----------
    directory : the run's folder.
    port : as in `listen`.
    fd : of a socket that listens already, of the run whose child this process is.
    """
    look.bokeh("models")
    view = LiveView(directory)
    if fd is not None:
        os.nice(19)  # the processor is the run's
        serve(view, socket.socket(fileno=fd), end_of_input)
        return
    listening = listen(port)
    print(f"http://{ADDRESS}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):
        serve(view, listening, threading.Event().wait)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine alone; port 0 takes one that is free.

    Raises
    ------
    ConfigurationError
        If the port cannot be had.
    """
    try:
        return socket.create_server((ADDRESS, port), backlog=256)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"Nothing can be served on {ADDRESS}:{port} ({error}); name another port. 0 takes one "
            "that is free."
        ) from error


def end_of_input() -> None:
    """Wait until nobody holds the other end of the standard input."""
    while sys.stdin.buffer.read(1024):
        continue


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, view: LiveView, listening: socket.socket) -> None:
        super().__init__((ADDRESS, 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.view = view
        self.places = threading.BoundedSemaphore(MOST_READERS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of readers who have left, and in one line what else went wrong."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"fedagent watch: {error!r}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Answer with the page or its data."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in NAMES:  # a page from elsewhere that has had its name point here
            self.send_error(403)
            return
        answers = {"/": ("text/html", self.server.view.html)}
        answers["/data.json"] = ("application/json", self.server.view.data)
        if self.path not in answers:
            self.send_error(404)
            return
        kind, answer = answers[self.path]
        try:
            body = answer()
        except FedagentError as error:
            self.send_error(500, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the run has the terminal."""


def _plain(column: Any) -> list[Any]:
    return [one.tolist() if hasattr(one, "tolist") else one for one in column]
