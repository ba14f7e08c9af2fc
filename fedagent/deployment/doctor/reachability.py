"""Checks of the way to a SuperLink: address, TLS, health, clock, and what it shows to this machine.

A SuperLink of Flower 1.41 speaks HTTP on one port: ``/v1/fleet/`` for devices, ``/v1/control/`` for
the operator, ``/v1/runtime/`` for ServerApps, and ``/health``.
"""

import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from fedagent.deployment.doctor.finding import Finding
from fedagent.errors import ConfigurationError
from fedagent.formatting import duration

# What the SuperLink allows between a node's signature and its own clock
# (flwr.common.constant.SYSTEM_TIME_TOLERANCE and TIMESTAMP_TOLERANCE).
AHEAD_ALLOWED_S, BEHIND_ALLOWED_S = 5.0, 300.0
# The Date header has whole seconds, and uvicorn renews it once a second.
CLOCK_RESOLUTION_S = 2.0
TIMEOUT_S = 5.0
NOT_YET_VALID, EXPIRED, UNKNOWN_ISSUERS = 9, 10, (18, 19, 20, 21)
WRONG_NAMES = (62, 64)


@dataclass(frozen=True)
class SuperLink:
    """Where a SuperLink is, and how to talk to it.

    Parameters
    ----------
    host : a name or an IP address.
    port : its port, or that of the reverse proxy in front of it.
    root_certificates : the CA to trust; None for the system's.
    insecure : HTTP instead of HTTPS.
    """

    host: str
    port: int
    root_certificates: Path | None = None
    insecure: bool = False

    @classmethod
    def at(
        cls, address: str, root_certificates: Path | None = None, insecure: bool = False
    ) -> "SuperLink":
        """Read HOST:PORT; an IPv6 address stands in brackets.

        Raises
        ------
        ConfigurationError
            If `address` is something else.
        """
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (host and port.isdigit() and 0 < int(port) < 2**16) or "/" in address:
            raise ConfigurationError(
                f"--superlink {address!r} is not HOST:PORT; give it as flower-supernode takes it, "
                "without a scheme: superlink.example.org:9093."
            )
        return cls(host, int(port), root_certificates, insecure)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_this_machine(self) -> bool:
        """Whether the address never leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def trust(self) -> ssl.SSLContext:
        """Return what certificates are verified with; an OSError if the CA cannot be read."""
        return ssl.create_default_context(cafile=self.root_certificates)

    def get(self, path: str) -> tuple[int, str | None]:
        """Return the status and the Date header of a GET."""
        place, timeout_s = (self.host, self.port), TIMEOUT_S
        connection = (
            HTTPConnection(*place, timeout=timeout_s)
            if self.insecure
            else HTTPSConnection(*place, timeout=timeout_s, context=self.trust())
        )
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            reply.read()
            return reply.status, reply.getheader("date")
        finally:
            connection.close()


def check_superlink(superlink: SuperLink) -> list[Finding]:
    """Check, step by step, that a SuperNode here would reach `superlink`; stop where it would."""
    reached = check_connection(superlink)
    if reached.status != "ok":
        return [reached]
    if untrusted := check_trust(superlink):
        return [reached, untrusted]
    try:
        started = time.time()
        status, date = superlink.get("/health")
        moment = datetime.fromtimestamp((started + time.time()) / 2, UTC)
    except (OSError, HTTPException) as error:
        return [reached, explain(error, superlink)]
    findings = [
        reached,
        check_encryption(superlink),
        check_health(status),
        check_clock(date, moment),
    ]
    return [*findings, *([] if superlink.is_this_machine else [check_exposure(superlink)])]


def check_connection(superlink: SuperLink) -> Finding:
    """Check that the name resolves and the port accepts a connection."""
    try:
        socket.create_connection((superlink.host, superlink.port), timeout=TIMEOUT_S).close()
    except socket.gaierror as error:
        return Finding(
            "superlink",
            "broken",
            f"the name {superlink.host} is unknown ({error.strerror})",
            "Check the spelling and the DNS of this machine, or use the IP address.",
        )
    except ConnectionRefusedError:
        return Finding(
            "superlink",
            "broken",
            f"nothing listens at {superlink}",
            "Start flower-superlink there, with --host 0.0.0.0 or a reverse proxy: by default it "
            "listens for its own machine only. Check the port.",
        )
    except OSError as error:
        return Finding(
            "superlink",
            "broken",
            f"{superlink} cannot be reached ({error})",
            f"Check the network and that the firewalls between here and there let TCP port "
            f"{superlink.port} through.",
        )
    return Finding("superlink", "ok", f"{superlink} accepts connections")


def check_trust(superlink: SuperLink) -> Finding | None:
    """Return what is wrong with the CA that is to be trusted, or None."""
    try:
        if not superlink.insecure:
            superlink.trust()
    except OSError as error:  # ssl.SSLError is one
        return Finding(
            "tls",
            "broken",
            f"{superlink.root_certificates} cannot be used ({error})",
            "Pass --root-certificates the ca.crt of the SuperLink, a PEM file.",
        )
    return None


def check_encryption(superlink: SuperLink) -> Finding:
    """Check that what was just said could be read by nobody else."""
    if not superlink.insecure:
        return Finding("tls", "ok", f"the certificate is trusted and names {superlink.host}")
    if superlink.is_this_machine:
        return Finding("tls", "ok", "none, and the connection stays on this machine")
    return Finding(
        "tls",
        "warning",
        "none: models and data about them travel in the open, and anybody can pose as a device",
        "fedagent certificates --host NAME, then start both sides with its files (docs/deploy.md).",
    )


def check_health(status: int) -> Finding:
    """Check the SuperLink's answer to GET /health."""
    if status == 200:
        return Finding("health", "ok", "the SuperLink is healthy")
    return Finding(
        "health",
        "broken",
        f"GET /health was answered with {status}",
        "502 to 504: the reverse proxy works and the SuperLink behind it does not, look at its "
        "log. Anything else: this is not a SuperLink of Flower 1.41 or newer.",
    )


def check_clock(date: str | None, moment: datetime) -> Finding:
    """Check this machine's clock against the Date header of a reply that came at `moment`."""
    try:
        peer = parsedate_to_datetime(date or "") + timedelta(seconds=0.5)  # cut to whole seconds
        offset_s = (moment - peer).total_seconds()
    except (ValueError, TypeError):
        return Finding("clock", "not checked", "the SuperLink does not tell its time")
    if abs(offset_s) <= CLOCK_RESOLUTION_S:
        return Finding("clock", "ok", f"within {duration(CLOCK_RESOLUTION_S)} of the SuperLink's")
    what = f"{duration(abs(offset_s))} {'ahead of' if offset_s > 0 else 'behind'} the SuperLink's"
    fix = "Synchronise both clocks: timedatectl set-ntp true."
    if -BEHIND_ALLOWED_S < offset_s < AHEAD_ALLOWED_S:
        return Finding("clock", "warning", what, fix)
    return Finding("clock", "broken", f"{what}: signatures of the node are refused", fix)


def check_exposure(superlink: SuperLink) -> Finding:
    """Check whether the operator's API answers to this machine; nothing else guards it."""
    try:
        status, _ = superlink.get("/v1/control/register-node")  # exists for POST only
    except (OSError, HTTPException) as error:
        return Finding("exposure", "not checked", f"the connection was cut ({error})")
    if status != 405:
        return Finding("exposure", "ok", "the control API is closed to this machine")
    return Finding(
        "exposure",
        "warning",
        "the control API answers: who can connect can register nodes and start runs",
        "Right for the operator's machine. For devices, put server/deploy/nginx.conf in front of "
        "the SuperLink and let it listen on 127.0.0.1 only.",
    )


def explain(error: OSError | HTTPException, superlink: SuperLink) -> Finding:
    """Say what an error while talking to `superlink` means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding("tls", "broken", f"refused: {error.verify_message}", _fix(error, superlink))
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return Finding(
            "tls",
            "broken",
            "the SuperLink speaks HTTP without TLS",
            "Start it with --ssl-certfile, --ssl-keyfile and --ssl-ca-certfile, or, in a network "
            "you trust, start everything with --insecure.",
        )
    if superlink.insecure:
        return Finding(
            "health",
            "broken",
            f"no answer over plain HTTP ({error!r})",
            "If the SuperLink has TLS, leave --insecure out and pass --root-certificates.",
        )
    return Finding(
        "health",
        "broken",
        f"no answer ({error!r})",
        f"Look at the log of what listens at {superlink}: is it a SuperLink of Flower 1.41?",
    )


def _fix(error: ssl.SSLCertVerificationError, superlink: SuperLink) -> str:
    if error.verify_code in UNKNOWN_ISSUERS:
        return "Pass --root-certificates the ca.crt that signed the SuperLink's certificate."
    if error.verify_code in WRONG_NAMES:
        return (
            "Connect to a name that the certificate has, or on the SuperLink: fedagent "
            f"certificates --host {superlink.host} --force (name all other hosts again)."
        )
    if error.verify_code in (NOT_YET_VALID, EXPIRED):
        return (
            "Check the clock of this machine; if it is right, on the SuperLink: fedagent "
            "certificates --host NAME --force."
        )
    return "On the SuperLink, make a new certificate: fedagent certificates --host NAME --force."
