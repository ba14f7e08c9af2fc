"""``fedagent certificates``: a development CA, a server certificate, and keys of nodes.

| file | who has it | what for |
|---|---|---|
| ca.crt | every machine | verifies the SuperLink's certificate |
| ca.key | the machine that signs | makes further server certificates |
| server.crt, server.key | the SuperLink | TLS |
| superexec.secret | SuperLink and SuperExec | tells the SuperExec apart from anybody else |
| nodes/NAME.key | one device | signs what its SuperNode asks the SuperLink |
| nodes/NAME.pub | the operator | registered with ``flwr supernode register`` |

Folders that are made are for their owner only.

Flower 1.41 reads node keys in OpenSSH format, NIST curves only; P-384 is what it makes itself.
"""

import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedagent.errors import ConfigurationError, require

PRIVATE, PUBLIC, PRIVATE_FOLDER = 0o600, 0o644, 0o700
CA_DAYS = 3650
ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")  # the operator on the SuperLink's own machine
CLOCK_TOLERANCE = timedelta(hours=1)  # a device whose clock is behind shall not refuse a new one
HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def make_certificates(
    directory: Path,
    hosts: Sequence[str],
    *,
    days: int = 365,
    force: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """Write a server certificate for `hosts`, signed by the CA in `directory`; return the files.

    A CA and a SuperExec secret that are already there are used and never replaced: every device
    trusts that CA. To start over, delete the folder.

    Parameters
    ----------
    directory : where the files go; made if it is missing.
    hosts : names and IP addresses by which devices, the operator and containers reach the
        SuperLink. localhost, 127.0.0.1 and ::1 are always added.
    days : validity of the server certificate, > 0; the CA's is ten years.
    force : overwrite an earlier server certificate.
    now : the first moment of validity, less one hour; by default the wall clock.

    Raises
    ------
    ConfigurationError
        If a host or `days` cannot work, a file would be overwritten, or the CA is incomplete.
    """
    require(bool(hosts), "No host is given; name what devices connect to, with --host.")
    require(days > 0, f"days={days} must be positive: it is how long the certificate is valid.")
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *ALWAYS_NAMED))]
    certificate_path, key_path = directory / "server.crt", directory / "server.key"
    _refuse_to_overwrite((certificate_path, key_path), force)
    start = (now or datetime.now(UTC)) - CLOCK_TOLERANCE
    authority, authority_key, written = _authority(directory, start)
    end = start + CLOCK_TOLERANCE + timedelta(days=days)
    require(
        end <= authority.not_valid_after_utc,
        f"days={days} is longer than the CA lives ({authority.not_valid_after_utc:%Y-%m-%d}); "
        f"choose fewer days, or delete {directory} to start over with a new CA.",
    )

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("fedagent SuperLink", authority.subject, key.public_key(), start, end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    written += [
        _write(certificate_path, certificate.public_bytes(Encoding.PEM), PUBLIC),
        _write(key_path, _private_pem(key), PRIVATE),
    ]
    secret_path = directory / "superexec.secret"
    if not secret_path.exists():
        written.append(_write(secret_path, secrets.token_hex(32).encode(), PRIVATE))
    return written


def make_node_keys(directory: Path, names: Sequence[str], *, force: bool = False) -> list[Path]:
    """Write nodes/NAME.key and nodes/NAME.pub for every name; return the files.

    Raises
    ------
    ConfigurationError
        If a name is not a plain file name, or a file would be overwritten.
    """
    for name in names:
        require(
            NODE_NAME.fullmatch(name) is not None,
            f"--node {name!r} cannot be a file name; use letters, digits, '.', '_' and '-'.",
        )
    folder = directory / "nodes"
    paths = [(folder / f"{name}.key", folder / f"{name}.pub") for name in dict.fromkeys(names)]
    _refuse_to_overwrite([path for pair in paths for path in pair], force)
    written = []
    for private_path, public_path in paths:
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        label = f" {private_path.stem}\n".encode()
        written += [
            _write(private_path, private, PRIVATE),
            _write(public_path, public + label, PUBLIC),
        ]
    return written


def who_takes_what(directory: Path, nodes: Sequence[str]) -> str:
    """Return which flag of which Flower command takes which file in `directory`."""
    uses = [
        ("ca.crt", "flower-superlink --ssl-ca-certfile"),
        ("ca.crt", "flower-supernode, flower-superexec --root-certificates"),
        ("ca.crt", "root-certificates (absolute path) in ~/.flwr/config.toml"),
        ("server.crt", "flower-superlink --ssl-certfile"),
        ("server.key", "flower-superlink --ssl-keyfile"),
        ("superexec.secret", "flower-superlink, flower-superexec --superexec-auth-secret-file"),
        ("ca.key", "nobody: it signs further server certificates, keep it off the SuperLink"),
    ]
    for node in nodes:
        uses += [
            (f"nodes/{node}.key", "flower-supernode --auth-supernode-private-key"),
            (f"nodes/{node}.pub", "flwr supernode register FILE NAME"),
        ]
    uses = [(name, use) for name, use in uses if (directory / name).exists()]
    width = max((len(str(directory / name)) for name, _ in uses), default=0)
    return "\n".join(f"{directory / name!s:<{width}}  {use}" for name, use in uses)


def _authority(
    directory: Path, start: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, list[Path]]:
    """Return the CA's certificate and key, and the files written if there was none."""
    certificate_path, key_path = directory / "ca.crt", directory / "ca.key"
    if not certificate_path.exists() and not key_path.exists():
        return _new_authority(certificate_path, key_path, start)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"The CA in {directory} cannot sign: {error}. Bring ca.crt and ca.key together, or "
            "use another --directory for a new CA."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise ConfigurationError(
            f"{key_path} is not the key of {certificate_path}; bring the two files of one CA "
            "together, or use another --directory for a new CA."
        )
    return certificate, key, []


def _new_authority(
    certificate_path: Path, key_path: Path, start: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, list[Path]]:
    key = ec.generate_private_key(ec.SECP384R1())
    name, end = "fedagent development CA", start + timedelta(days=CA_DAYS)
    certificate = (
        _builder(name, _name(name), key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = [
        _write(certificate_path, certificate.public_bytes(Encoding.PEM), PUBLIC),
        _write(key_path, _private_pem(key), PRIVATE),
    ]
    return certificate, key, written


def _builder(
    name: str,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        require(
            HOST_NAME.fullmatch(host) is not None,
            f"--host {host!r} is neither a name nor an IP address; give it without a scheme and "
            "without a port: superlink.example.org or 192.168.1.10.",
        )
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _refuse_to_overwrite(paths: Sequence[Path], force: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    require(
        force or not existing,
        f"Already there: {', '.join(existing)}. Whoever uses the old file would be locked out; add "
        "--force to overwrite it, or use another --directory.",
    )


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner may look into; one that is there stays as it is."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(PRIVATE_FOLDER)


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Write a file that nobody ever sees half written or readable by more than `mode` allows."""
    try:
        _make_private(path.parent)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:  # mkstemp makes it 0600
            file.write(content)
        Path(draft).chmod(mode)
        Path(draft).replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error}); choose a --directory that you may write to."
        ) from error
    return path
