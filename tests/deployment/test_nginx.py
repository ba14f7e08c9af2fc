"""server/deploy/nginx.conf in a real nginx, with a stand-in for the SuperLink behind it."""

import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from benchmarks.flower_processes import free_port
from fedagent.deployment.doctor.reachability import SuperLink, check_superlink
from tests.deployment.conftest import Peer, serving

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION = Path(__file__).parents[2] / "server" / "deploy" / "nginx.conf"
OPEN = {"/health": 200, "/v1/fleet/pull-messages": 200, "/v1/control/register-node": 405}

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@contextmanager
def _nginx(folder, certificates, superlink_port):
    """Run nginx with the shipped file, other ports and other certificates; yield its port."""
    port = free_port()
    site = CONFIGURATION.read_text().replace("/etc/fedagent", str(certificates))
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{superlink_port}")
    site = site.replace("listen 9093", f"listen 127.0.0.1:{port}")
    paths = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{site}}}\n"
    )
    log = folder / "error.log"
    process = subprocess.Popen([NGINX, "-c", main, "-e", log, "-p", folder])
    try:
        for _ in range(100):
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def front(certificates, tmp_path):
    with (
        serving(Peer(statuses=OPEN), time.time, certificates) as peer,
        _nginx(tmp_path, certificates, peer.port) as port,
    ):
        yield SuperLink("127.0.0.1", port, certificates / "ca.crt")


def _post(superlink, path, num_bytes):
    connection = HTTPSConnection(
        superlink.host, superlink.port, timeout=10, context=superlink.trust()
    )
    try:
        connection.request("POST", path, body=bytes(num_bytes))
        return connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return "cut"  # nginx need not listen to the end of what it refuses
    finally:
        connection.close()


def test_doctor_finds_all_well_behind_nginx(front):
    assert [finding.status for finding in check_superlink(front)] == ["ok"] * 4


def test_devices_reach_the_fleet_api_and_no_other(front):
    assert front.get("/v1/fleet/pull-messages")[0] == 200
    for path in ("/v1/control/register-node", "/v1/runtime/acquire-task", "/docs", "/"):
        assert front.get(path)[0] == 403


def test_a_path_with_dots_does_not_lead_out_of_the_fleet_api(front):
    for path in ("/v1/fleet/../control/register-node", "/v1/fleet/%2e%2e/control/register-node"):
        assert front.get(path)[0] == 403


def test_a_large_request_is_refused_and_an_object_of_flower_is_not(front):
    assert _post(front, "/v1/fleet/pull-messages", 40_000_000) in (413, "cut")
    assert _post(front, "/v1/fleet/pull-messages", 5_300_000) == 200


def test_a_superlink_that_is_down_is_told_by_a_status_that_supernodes_retry(certificates, tmp_path):
    with _nginx(tmp_path, certificates, free_port()) as port:
        superlink = SuperLink("127.0.0.1", port, certificates / "ca.crt")
        assert superlink.get("/health")[0] == 502
        assert check_superlink(superlink)[2].status == "broken"
