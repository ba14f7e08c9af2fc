import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from typer.testing import CliRunner

from fedagent.cli import cli
from fedagent.deployment.certificates import make_certificates, make_node_keys
from fedagent.errors import ConfigurationError


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def _handshake(folder, name):
    """Let a client that trusts the folder's CA connect to `name`; return what stopped it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(cafile=folder / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    ours, theirs = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(theirs, server_side=True) as stream:
                stream.recv(1)
        except OSError:  # the client refused us
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join()
    return None


def test_a_client_that_trusts_the_ca_accepts_the_named_hosts_and_no_other(tmp_path):
    make_certificates(tmp_path, ["superlink.example.org", "192.168.1.10"])
    for name in ("superlink.example.org", "192.168.1.10", "localhost", "127.0.0.1"):
        assert _handshake(tmp_path, name) is None
    assert "mismatch" in _handshake(tmp_path, "other.example.org")
    assert "mismatch" in _handshake(tmp_path, "192.168.1.11")


def test_private_files_are_for_their_owner_only(tmp_path):
    written = make_certificates(tmp_path, ["a"]) + make_node_keys(tmp_path, ["device"])
    private = {path.name for path in written if _mode(path) == 0o600}
    public = {path.name for path in written if _mode(path) == 0o644}
    assert private == {"ca.key", "server.key", "superexec.secret", "device.key"}
    assert public == {"ca.crt", "server.crt", "device.pub"}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(written), "no drafts"


@pytest.mark.parametrize("make", [make_certificates, make_node_keys])
def test_folders_that_are_made_are_for_their_owner_only(tmp_path, make):
    tmp_path.chmod(0o755)
    make(tmp_path / "fleet" / "certificates", ["a"])
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {_mode(path) for path in made} == {0o700}
    assert _mode(tmp_path) == 0o755, "it was there, and others may need it"


def test_an_overwritten_private_file_does_not_keep_open_permissions(tmp_path):
    key = make_node_keys(tmp_path, ["device"])[0]
    key.chmod(0o644)
    make_node_keys(tmp_path, ["device"], force=True)
    assert _mode(key) == 0o600


def test_flower_reads_the_node_keys(tmp_path):
    private_path, public_path = make_node_keys(tmp_path, ["device"])
    private = load_ssh_private_key(private_path.read_bytes(), None)  # as flower-supernode does
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert try_load_public_key(public_path) == public_key_to_bytes(private.public_key())


def test_nothing_is_overwritten_without_force(tmp_path):
    make_certificates(tmp_path, ["a"])
    make_node_keys(tmp_path, ["device"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match=r"server\.crt.*--force"):
        make_certificates(tmp_path, ["b"])
    with pytest.raises(ConfigurationError, match=r"device\.key.*--force"):
        make_node_keys(tmp_path, ["new", "device"])
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_renewed_certificate_comes_from_the_ca_that_the_devices_trust(tmp_path):
    make_certificates(tmp_path, ["old"])
    authority = (tmp_path / "ca.crt").read_bytes()
    secret = (tmp_path / "superexec.secret").read_bytes()
    written = make_certificates(tmp_path, ["new"], force=True)
    assert {path.name for path in written} == {"server.crt", "server.key"}
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert (tmp_path / "superexec.secret").read_bytes() == secret
    assert _handshake(tmp_path, "new") is None


def test_the_certificate_is_valid_for_the_days_that_were_asked_for(tmp_path):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    make_certificates(tmp_path, ["a"], days=30, now=now)
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    assert certificate.not_valid_after_utc == now + timedelta(days=30)
    assert certificate.not_valid_before_utc < now, "a device whose clock is a little behind"


@pytest.mark.parametrize("host", ["https://a.org", "a.org:9093", "a b", "", "-a", "a/b"])
def test_a_host_is_a_name_or_an_address(tmp_path, host):
    with pytest.raises(ConfigurationError, match="without a scheme"):
        make_certificates(tmp_path, [host])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b"])
def test_a_node_name_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ConfigurationError, match="cannot be a file name"):
        make_node_keys(tmp_path, [name])


def test_a_certificate_cannot_outlive_its_ca(tmp_path):
    with pytest.raises(ConfigurationError, match="longer than the CA lives"):
        make_certificates(tmp_path, ["a"], days=3651)


def test_an_incomplete_or_foreign_ca_says_so(tmp_path):
    make_certificates(tmp_path / "one", ["a"])
    make_certificates(tmp_path / "two", ["a"])
    key = tmp_path / "one" / "ca.key"
    key.write_bytes((tmp_path / "two" / "ca.key").read_bytes())
    with pytest.raises(ConfigurationError, match="is not the key of"):
        make_certificates(tmp_path / "one", ["a"], force=True)
    key.unlink()
    with pytest.raises(ConfigurationError, match="cannot sign"):
        make_certificates(tmp_path / "one", ["a"], force=True)


def test_the_command_says_which_flag_takes_which_file(tmp_path):
    done = CliRunner().invoke(
        cli, ["certificates", "--host", "a", "--node", "d1", "--directory", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    for file, flag in [
        ("server.crt", "--ssl-certfile"),
        ("server.key", "--ssl-keyfile"),
        ("ca.crt", "--ssl-ca-certfile"),
        ("ca.crt", "--root-certificates"),
        ("superexec.secret", "--superexec-auth-secret-file"),
        ("nodes/d1.key", "--auth-supernode-private-key"),
        ("nodes/d1.pub", "supernode register"),
    ]:
        assert any(str(tmp_path / file) in line and flag in line for line in lines), (file, flag)


def test_the_command_without_a_wish_says_what_can_be_made():
    done = CliRunner().invoke(cli, ["certificates"])
    assert isinstance(done.exception, ConfigurationError)
    assert "--host" in str(done.exception)
