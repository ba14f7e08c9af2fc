"""Checks of certificate and key files."""

import ipaddress
import stat
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)

from fedagent.deployment.doctor.finding import Finding

EXPIRES_SOON = timedelta(days=14)
NEW_CERTIFICATE = "make a new one: fedagent certificates --host NAME --force."
Content = TypeVar("Content")


def check_certificate(path: Path, hosts: Sequence[str], now: datetime) -> list[Finding]:
    """Check that a PEM certificate is readable, valid `now`, and names all `hosts`."""
    certificate = _read("certificate", path, x509.load_pem_x509_certificate)
    if isinstance(certificate, Finding):
        return [certificate]
    return [_validity(path, certificate, now), *(_naming(certificate, host) for host in hosts)]


def check_signature(path: Path, authority_path: Path) -> Finding:
    """Check that the certificate in `path` was signed by the CA in `authority_path`."""
    certificate = _read("certificate", path, x509.load_pem_x509_certificate)
    authority = _read("CA", authority_path, x509.load_pem_x509_certificate)
    if isinstance(certificate, Finding):
        return certificate
    if isinstance(authority, Finding):
        return authority
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return Finding(
            "CA",
            "broken",
            f"{authority_path} did not sign {path}",
            "Give the devices the ca.crt that was made together with the server certificate.",
        )
    return Finding("CA", "ok", f"{authority_path} signed {path}")


def check_key(path: Path, certificate_path: Path | None = None) -> list[Finding]:
    """Check that a PEM private key is readable, private, and belongs to the certificate."""
    key = _read("key", path, lambda content: load_pem_private_key(content, None))
    if isinstance(key, Finding):
        return [key]
    findings = [_privacy("key", path)]
    if certificate_path is None:
        return findings
    certificate = _read("certificate", certificate_path, x509.load_pem_x509_certificate)
    if isinstance(certificate, Finding):
        return [*findings, certificate]
    if key.public_key() == certificate.public_key():
        return [*findings, Finding("key", "ok", f"belongs to {certificate_path}")]
    mismatch = Finding(
        "key",
        "broken",
        f"{path} is not the key of {certificate_path}",
        "Bring together the server.crt and server.key that were made together.",
    )
    return [*findings, mismatch]


def check_node_key(path: Path) -> list[Finding]:
    """Check that flower-supernode can use a private key, and that nobody else can read it."""
    key = _read("node key", path, lambda content: load_ssh_private_key(content, None))
    if isinstance(key, Finding):
        return [key]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return [_privacy("node key", path)]
    return [
        Finding(
            "node key",
            "broken",
            f"{path} is not an elliptic-curve key, and Flower takes no other",
            "Make one: fedagent certificates --node NAME; register the new .pub file.",
        )
    ]


def _read(name: str, path: Path, load: Callable[[bytes], Content]) -> Content | Finding:
    """Return what is in the file, or the finding that says why it cannot be used."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        return Finding(
            name,
            "broken",
            f"{path}: {error.strerror}",
            "Check the path, and that the user who runs Flower may read the file.",
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return Finding(
            name,
            "broken",
            f"{path} cannot be used: {str(error).splitlines()[0] if str(error) else error!r}",
            "Check that it is the right file, in PEM or OpenSSH format and without a password; "
            "`fedagent certificates` makes such files.",
        )


def _validity(path: Path, certificate: x509.Certificate, now: datetime) -> Finding:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        return Finding(
            "certificate",
            "broken",
            f"{path} is valid from {start:%Y-%m-%d %H:%M} UTC only, and it is {now:%Y-%m-%d %H:%M}",
            f"Set this machine's clock, or {NEW_CERTIFICATE}",
        )
    if now >= end:
        fix = f"If the clock is right, {NEW_CERTIFICATE}"
        return Finding("certificate", "broken", f"{path} expired on {end:%Y-%m-%d}", fix)
    what = f"{path} is valid until {end:%Y-%m-%d}"
    if end - now < EXPIRES_SOON:
        return Finding("certificate", "warning", what, f"Before that day, {NEW_CERTIFICATE}")
    return Finding("certificate", "ok", what)


def _naming(certificate: x509.Certificate, host: str) -> Finding:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    addresses = names.get_values_for_type(x509.IPAddress)
    domains = names.get_values_for_type(x509.DNSName)
    try:
        is_named = ipaddress.ip_address(host) in addresses
    except ValueError:
        wildcard = f"*.{host.partition('.')[2]}"  # covers one label, as TLS clients see it
        is_named = bool({host.lower(), wildcard.lower()} & {name.lower() for name in domains})
    if is_named:
        return Finding("certificate", "ok", f"names {host}")
    return Finding(
        "certificate",
        "broken",
        f"does not name {host}, only {', '.join(map(str, (*domains, *addresses))) or 'no host'}",
        f"Connect to a name it has, or: fedagent certificates --host {host} --force (name all "
        "other hosts again).",
    )


def _privacy(name: str, path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        what = f"{path} can be used by others on this machine (mode {mode:04o})"
        return Finding(name, "warning", what, f"chmod 600 {path}")
    return Finding(name, "ok", f"{path} is readable and private")
