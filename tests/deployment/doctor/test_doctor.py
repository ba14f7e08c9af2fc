import json
import shutil
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from typer.testing import CliRunner

from fedagent._flower import USES
from fedagent._flower.private_use import PrivateName
from fedagent.cli import cli
from fedagent.deployment.certificates import make_certificates
from fedagent.deployment.doctor import machine, reachability
from fedagent.deployment.doctor.credentials import (
    check_certificate,
    check_key,
    check_node_key,
    check_signature,
)
from fedagent.deployment.doctor.examination import Examination, examine, render
from fedagent.deployment.doctor.finding import Finding
from fedagent.deployment.doctor.flower import check_private_names
from fedagent.deployment.doctor.proxy import check_loopback, check_proxy
from fedagent.deployment.doctor.reachability import SuperLink, check_clock, check_superlink
from fedagent.errors import ConfigurationError
from tests.deployment.conftest import Peer, serving

NOW = datetime.now(UTC)


def _by_name(findings):
    return {finding.name: finding for finding in findings}


def _statuses(findings):
    return [finding.status for finding in findings]


# Findings


@pytest.mark.parametrize("status", ["warning", "broken"])
def test_a_finding_that_is_not_fine_has_a_fix(status):
    with pytest.raises(ConfigurationError, match="says no fix"):
        Finding("x", status, "is off")


# The machine


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 9), "broken"), ((3, 11, 0), "ok"), ((4, 0, 0), "ok")]
)
def test_an_old_python_is_broken(version, status):
    assert machine.check_python(version).status == status


@pytest.mark.parametrize(
    ("installed", "status"),
    [("1.40.9", "broken"), ("1.41.0", "ok"), ("1.44.0", "ok"), ("2.0.0", "broken")],
)
def test_flwr_must_be_in_the_range(installed, status):
    finding = machine.check_package("flwr", installed, ">=1.41,<2")
    assert finding.status == status
    assert (status == "ok") or "pip install 'flwr<2,>=1.41'" in finding.fix


def test_a_missing_package_is_broken_and_says_how_to_get_it():
    finding = machine.check_package("torch", None, ">=2.4")
    assert finding.status == "broken"
    assert finding.fix == "pip install 'torch>=2.4'"


def test_what_runs_these_tests_fits():
    assert _statuses(machine.check_packages()) == ["ok", "ok"]


def test_every_use_of_private_names_is_a_finding():
    findings = _by_name(check_private_names())
    assert {name: finding.status for name, finding in findings.items()} == {
        **{f"flwr: {use.purpose}": "ok" for use in USES},
        "flwr: checked": "ok",
    }


@pytest.mark.parametrize("use", USES, ids=lambda use: use.purpose)
def test_a_private_name_that_is_gone_is_a_finding_with_its_price_and_a_fix(use, monkeypatch):
    gone = replace(use, names=(PrivateName("flwr.app", "gone"),))
    monkeypatch.setattr("fedagent._flower.USES", (gone,))
    finding = check_private_names()[0]
    assert "has no flwr.app.gone" in finding.what
    if use.substitute is None:
        assert (finding.status, "no simulation can begin" in finding.what) == ("broken", True)
    else:
        assert (finding.status, use.substitute in finding.what) == ("warning", True)
    assert "pip install 'flwr==1.42.0'" in finding.fix


def test_a_version_of_flower_that_was_not_checked_is_a_warning(monkeypatch):
    monkeypatch.setattr("fedagent._flower.private_use.metadata.version", lambda name: "1.44.0")
    finding = check_private_names()[-1]
    assert (finding.name, finding.status) == ("flwr: checked", "warning")
    assert "1.41.0 and 1.42.0, not with 1.44.0" in finding.what
    assert "--executor=fork" in finding.fix


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert machine.check_gpu(has_driver=True).status == "warning"
    assert machine.check_gpu(has_driver=False).status == "ok"


def test_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda k: "H100")
    assert machine.check_gpu().what == "2 x H100"


def test_a_port_is_free_or_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        finding = machine.check_port(port)
        assert finding.status == "broken"
        assert "another program" in finding.what
    assert machine.check_port(port).status == "ok"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ConfigurationError, match=f"--port {port} is no port"):
        Examination(ports=[port])


def test_a_port_that_flower_has_already_is_a_warning_only(certificates):
    for folder in (None, certificates):
        with serving(Peer(), time.time, folder) as peer:
            finding = machine.check_port(peer.port)
        assert finding.status == "warning", folder
        assert "a Flower process" in finding.what


@pytest.mark.parametrize(("gigabytes", "status"), [(0.1, "broken"), (1, "warning"), (50, "ok")])
def test_little_disk_or_memory_is_told(tmp_path, gigabytes, status):
    assert machine.check_disk(tmp_path, gigabytes * 1e9).status == status
    assert machine.check_memory(gigabytes * 1e9).status == status


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(tmp_path):
    assert machine.check_disk(tmp_path / "not" / "yet").status in ("ok", "warning")


def test_memory_that_no_system_call_tells_is_not_checked(monkeypatch):
    monkeypatch.setattr(machine, "_available_memory", lambda: None)
    assert machine.check_memory().status == "not checked"


# Certificates and keys


def test_good_files_are_ok(certificates):
    path = certificates / "server.crt"
    findings = [
        *check_certificate(path, ["superlink.example.org", "127.0.0.1"], NOW),
        check_signature(path, certificates / "ca.crt"),
        *check_key(certificates / "server.key", path),
        *check_node_key(certificates / "nodes" / "device.key"),
    ]
    assert _statuses(findings) == ["ok"] * 7


@pytest.mark.parametrize(
    ("after", "status", "says"),
    [
        (timedelta(days=-1), "broken", "valid from"),
        (timedelta(days=1), "ok", "valid until"),
        (timedelta(days=355), "warning", "valid until"),
        (timedelta(days=366), "broken", "expired"),
    ],
)
def test_a_certificate_has_its_time(certificates, after, status, says):
    (finding,) = check_certificate(certificates / "server.crt", [], NOW + after)
    assert finding.status == status
    assert says in finding.what


@pytest.mark.parametrize("host", ["other.example.org", "10.0.0.1", "example.org"])
def test_a_name_that_the_certificate_lacks_is_broken(certificates, host):
    finding = check_certificate(certificates / "server.crt", [host], NOW)[-1]
    assert finding.status == "broken"
    assert f"--host {host}" in finding.fix


@pytest.mark.parametrize(
    ("host", "status"), [("a.example.org", "ok"), ("a.b.example.org", "broken")]
)
def test_a_wildcard_covers_one_label(tmp_path, host, status):
    make_certificates(tmp_path, ["*.example.org"])
    assert check_certificate(tmp_path / "server.crt", [host], NOW)[-1].status == status


def test_files_of_two_authorities_do_not_fit(certificates, tmp_path):
    make_certificates(tmp_path, ["superlink.example.org"])
    assert check_signature(tmp_path / "server.crt", certificates / "ca.crt").status == "broken"
    assert check_key(tmp_path / "server.key", certificates / "server.crt")[-1].status == "broken"


def test_a_key_that_others_can_read_is_a_warning(certificates, tmp_path):
    for name, check in (("server.key", check_key), ("nodes/device.key", check_node_key)):
        path = Path(shutil.copy(certificates / name, tmp_path))
        path.chmod(0o640)
        (finding,) = check(path)
        assert finding.status == "warning"
        assert finding.fix == f"chmod 600 {path}"


def test_missing_and_wrong_files_are_broken_not_a_traceback(certificates, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("no key at all")
    for path in (wrong, tmp_path / "missing"):
        findings = [
            *check_certificate(path, ["a"], NOW),
            check_signature(path, certificates / "ca.crt"),
            check_signature(certificates / "server.crt", path),
            *check_key(path),
            *check_node_key(path),
        ]
        assert _statuses(findings) == ["broken"] * 5
        assert all(str(path) in finding.what for finding in findings)


def test_a_node_key_of_another_kind_is_broken(tmp_path):
    path = tmp_path / "id_ed25519"  # what ssh-keygen makes today
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (finding,) = check_node_key(path)
    assert finding.status == "broken"
    assert "fedagent certificates --node" in finding.fix


# The way to the SuperLink


def test_a_healthy_superlink_with_tls_is_ok(certificates):
    with serving(Peer(), time.time, certificates) as peer:
        superlink = SuperLink("127.0.0.1", peer.port, certificates / "ca.crt")
        findings = check_superlink(superlink)
    assert [finding.name for finding in findings] == ["superlink", "tls", "health", "clock"]
    assert _statuses(findings) == ["ok"] * 4


def test_an_unknown_authority_is_broken(certificates, tmp_path):
    make_certificates(tmp_path, ["a"])
    with serving(Peer(), time.time, certificates) as peer:
        for trusted in (None, tmp_path / "ca.crt"):
            finding = check_superlink(SuperLink("127.0.0.1", peer.port, trusted))[-1]
            assert (finding.name, finding.status) == ("tls", "broken")
            assert "--root-certificates" in finding.fix


def test_a_name_that_the_superlinks_certificate_lacks_is_broken(certificates):
    with serving(Peer(), time.time, certificates) as peer:
        superlink = SuperLink("127.0.0.2", peer.port, certificates / "ca.crt")
        # 127.0.0.2 is this machine too, but the server listens on 127.0.0.1 only.
        with pytest.MonkeyPatch.context() as patch:
            connect = socket.create_connection
            patch.setattr(
                "socket.create_connection",
                lambda address, *a, **k: connect(("127.0.0.1", peer.port), *a, **k),
            )
            finding = check_superlink(superlink)[-1]
    assert (finding.name, finding.status) == ("tls", "broken")
    assert "--host 127.0.0.2" in finding.fix


def test_tls_on_one_side_only_says_which(certificates):
    with serving(Peer(), time.time) as peer:
        finding = check_superlink(SuperLink("127.0.0.1", peer.port))[-1]
        assert finding.status == "broken"
        assert "without TLS" in finding.what
    with serving(Peer(), time.time, certificates) as peer:
        finding = check_superlink(SuperLink("127.0.0.1", peer.port, insecure=True))[-1]
        assert finding.status == "broken"
        assert "leave --insecure out" in finding.fix


def test_an_unreadable_authority_is_broken(certificates, tmp_path):
    with serving(Peer(), time.time, certificates) as peer:
        for path in (tmp_path / "missing", certificates / "ca.key"):
            finding = check_superlink(SuperLink("127.0.0.1", peer.port, path))[-1]
            assert finding.status == "broken"
            assert str(path) in finding.what


def test_a_dead_superlink_behind_a_proxy_is_broken():
    with serving(Peer(statuses={"/health": 502}), time.time) as peer:
        findings = _by_name(check_superlink(SuperLink("127.0.0.1", peer.port, insecure=True)))
    assert findings["health"].status == "broken"
    assert findings["clock"].status == "ok", "the proxy's clock still tells"


@pytest.fixture
def proxied(monkeypatch):
    """Name a proxy in the environment, and hosts that are excepted from it."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    return lambda **variables: [monkeypatch.setenv(k, v) for k, v in variables.items()]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_does_not_let_the_superlink_through_is_broken(proxied, variable):
    proxied(**{variable: "http://user:secret@127.0.0.1:9"})
    superlink = SuperLink("superlink.example.org", 9093, insecure=variable == "http_proxy")
    (finding,) = check_proxy(superlink)
    assert (finding.name, finding.status) == ("proxy", "broken")
    assert "superlink.example.org:9093 to http://127.0.0.1:9," in finding.what
    assert "secret" not in finding.what
    assert "NO_PROXY=superlink.example.org" in finding.fix
    proxied(NO_PROXY="example.org")
    assert check_proxy(superlink) == []


def test_a_proxy_that_lets_the_superlink_through_is_fine(proxied):
    url = "http://superlink.example.org:9093/health"  # what a proxy is asked for
    with serving(Peer(statuses={url: 200}), time.time) as peer:
        proxied(http_proxy=f"http://127.0.0.1:{peer.port}")
        (finding,) = check_proxy(SuperLink("superlink.example.org", 9093, insecure=True))
    assert (finding.name, finding.status) == ("proxy", "ok")


def test_a_proxy_for_another_scheme_is_none(proxied):
    proxied(https_proxy="http://127.0.0.1:9")
    assert check_proxy(SuperLink("superlink.example.org", 9093, insecure=True)) == []
    assert check_loopback() == []


def test_a_proxy_that_swallows_loopback_is_a_warning_until_it_is_excepted(proxied):
    assert check_loopback() == []
    proxied(http_proxy="http://user:secret@proxy:3128", no_proxy="localhost")
    (finding,) = check_loopback()
    assert (finding.name, finding.status) == ("proxy", "warning")
    assert "127.0.0.1, ::1" in finding.what
    assert "secret" not in finding.what
    assert "proxy" in _by_name(examine(Examination()))
    proxied(no_proxy="localhost,127.0.0.1,::1")
    assert check_loopback() == []


def test_a_closed_port_and_an_unknown_name_are_told_apart():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        (closed,) = check_superlink(SuperLink("127.0.0.1", port))
    (unknown,) = check_superlink(SuperLink("nowhere.invalid", 9093))
    assert "nothing listens" in closed.what
    assert "is unknown" in unknown.what


@pytest.mark.parametrize(
    ("ahead_s", "status"),
    [
        (0, "ok"),
        (4, "warning"),
        (7, "broken"),
        (-60, "warning"),
        (-290, "warning"),
        (-310, "broken"),
    ],
)
def test_a_clock_is_judged_as_the_superlink_judges_signatures(ahead_s, status):
    moment = datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    finding = check_clock("Tue, 01 Jan 2030 12:00:00 GMT", moment + timedelta(seconds=ahead_s))
    assert finding.status == status
    assert status == "ok" or ("ahead" if ahead_s > 0 else "behind") in finding.what


def test_the_tolerances_are_flowers():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert reachability.AHEAD_ALLOWED_S <= SYSTEM_TIME_TOLERANCE
    assert reachability.BEHIND_ALLOWED_S <= SYSTEM_TIME_TOLERANCE + TIMESTAMP_TOLERANCE


def test_the_clock_of_the_peer_comes_from_its_reply():
    with serving(Peer(clock_ahead_s=-3600), time.time) as peer:
        findings = check_superlink(SuperLink("127.0.0.1", peer.port, insecure=True))
    assert _by_name(findings)["clock"].status == "broken"
    assert "ahead" in _by_name(findings)["clock"].what


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_peer_without_a_date_is_not_checked(date):
    assert check_clock(date, NOW).status == "not checked"


@pytest.mark.parametrize(("status", "judged"), [(405, "warning"), (403, "ok"), (404, "ok")])
def test_an_open_control_api_is_a_warning_on_a_device(status, judged):
    peer = Peer(statuses={"/v1/control/register-node": status})
    with serving(peer, time.time):
        finding = reachability.check_exposure(SuperLink("127.0.0.1", peer.port, insecure=True))
    assert finding.status == judged


def test_no_tls_is_a_warning_unless_the_connection_stays_here():
    assert (
        reachability.check_encryption(SuperLink("10.0.0.1", 1, insecure=True)).status == "warning"
    )
    assert reachability.check_encryption(SuperLink("localhost", 1, insecure=True)).status == "ok"


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("a.org:9093", "a.org", 9093), ("10.0.0.1:1", "10.0.0.1", 1), ("[::1]:9093", "::1", 9093)],
)
def test_an_address_is_read_as_flower_reads_it(address, host, port):
    superlink = SuperLink.at(address)
    assert (superlink.host, superlink.port, str(superlink)) == (host, port, address)


@pytest.mark.parametrize("address", ["a.org", ":9093", "https://a:1", "a:0", "a:99999", "a:b"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        SuperLink.at(address)


# The command


def test_without_a_superlink_clock_and_way_are_said_to_be_unchecked():
    findings = _by_name(examine(Examination()))
    assert findings["clock"].status == findings["superlink"].status == "not checked"


def test_every_file_that_was_named_is_looked_at(certificates):
    findings = examine(
        Examination(
            root_certificates=certificates / "ca.crt",
            certificate=certificates / "server.crt",
            key=certificates / "server.key",
            hosts=["superlink.example.org"],
            node_key=certificates / "nodes" / "device.key",
        )
    )
    names = [finding.name for finding in findings]
    assert [names.count(name) for name in ("certificate", "CA", "key", "node key")] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    "wrong", [{"insecure": True, "root_certificates": "ca.crt"}, {"hosts": ["a"]}]
)
def test_options_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Examination(**wrong)


def test_the_exit_code_says_whether_something_is_broken(certificates):
    key = str(certificates / "nodes" / "device.key")
    fine = CliRunner().invoke(cli, ["doctor", "--node-key", key, "--json"])
    assert fine.exit_code == 0, fine.output
    broken = CliRunner().invoke(cli, ["doctor", "--node-key", key + ".missing", "--json"])
    assert broken.exit_code == 1
    found = {f["name"]: f for f in json.loads(broken.stdout)}
    assert found["node key"]["status"] == "broken"
    assert found["node key"]["fix"]


def test_the_table_shows_every_fix_and_takes_brackets_for_what_they_are():
    finding = Finding("superlink", "broken", "nothing listens at [::1]:9093", "Start it [now].")
    console = Console(width=200)
    with console.capture() as printed:
        console.print(render([finding]))
    assert "nothing listens at [::1]:9093" in printed.get()
    assert "-> Start it [now]." in printed.get()


def test_torch_is_not_imported_when_it_is_not_there(monkeypatch):
    monkeypatch.setattr(machine.metadata, "requires", lambda name: ["flwr>=1.41", "torch>=2.4"])
    monkeypatch.setattr(machine, "_installed", lambda name: None)
    monkeypatch.setattr(
        "fedagent.deployment.doctor.examination.check_gpu", None
    )  # calling it would raise
    findings = _by_name(examine(Examination()))
    assert findings["torch"].status == "broken"
    assert "gpu" not in findings
