"""A stand-in for a SuperLink: what `fedagent doctor` asks it, answered as told."""

import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedagent.deployment.certificates import make_certificates, make_node_keys


@dataclass
class Peer:
    """What the stand-in answers: its clock, and a status for every path."""

    clock_ahead_s: float = 0.0
    statuses: dict[str, int] = field(default_factory=lambda: {"/health": 200})
    port: int = 0


@contextmanager
def serving(peer, moment, certificates=None):
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "uvicorn", ""

        def do_GET(self):
            self.send_response(peer.statuses.get(self.path, 404))
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def version_string(self):
            return "uvicorn"

        def date_time_string(self, timestamp=None):
            return formatdate(moment() + peer.clock_ahead_s, usegmt=True)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that refuses the certificate is no news
    if certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder of `fedagent certificates --host superlink.example.org --node device`."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, ["superlink.example.org"])
    make_node_keys(folder, ["device"])
    return folder
