"""``fedagent doctor``: is everything here that a fleet needs, and if not, what to do."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedagent.deployment.doctor.credentials import (
    check_certificate,
    check_key,
    check_node_key,
    check_signature,
)
from fedagent.deployment.doctor.finding import Finding
from fedagent.deployment.doctor.machine import (
    check_disk,
    check_gpu,
    check_memory,
    check_packages,
    check_port,
    check_python,
)
from fedagent.deployment.doctor.proxy import check_loopback, check_proxy
from fedagent.deployment.doctor.reachability import (
    SuperLink,
    check_superlink,
)
from fedagent.errors import require

ANY_WIDTH = 10_000
COLOURS = {"ok": "green", "warning": "yellow", "broken": "red", "not checked": "dim"}


@dataclass(frozen=True)
class Examination:
    """What to look at; None and empty mean: it has none, or it was not asked for.

    Parameters
    ----------
    superlink : HOST:PORT as this machine would connect to it.
    root_certificates : the CA that devices trust.
    insecure : HTTP instead of HTTPS to the SuperLink.
    certificate, key : the SuperLink's own files, on its machine.
    hosts : names that `certificate` must have.
    node_key : the private key of a SuperNode.
    ports : what processes on this machine will listen on.
    folder : where results and databases will go.
    """

    superlink: str | None = None
    root_certificates: Path | None = None
    insecure: bool = False
    certificate: Path | None = None
    key: Path | None = None
    hosts: Sequence[str] = ()
    node_key: Path | None = None
    ports: Sequence[int] = ()
    folder: Path = Path()

    def __post_init__(self) -> None:
        require(
            not (self.insecure and self.root_certificates),
            "--insecure means no TLS, and --root-certificates is for TLS; leave one of them out.",
        )
        for port in self.ports:
            require(0 < port < 2**16, f"--port {port} is no port; give one from 1 to 65535.")
        require(
            not self.hosts or self.certificate is not None,
            "--host says what a certificate must name; give the file with --certificate.",
        )


def examine(wanted: Examination, now: datetime | None = None) -> list[Finding]:
    """Run every check that makes sense for what is `wanted`."""
    now = now or datetime.now(UTC)
    findings = [check_python(), *check_packages()]
    if all(finding.status != "broken" for finding in findings):
        # Imports Flower, and the checks above must work without it.
        from fedagent.deployment.doctor.flower import check_private_names  # noqa: PLC0415

        findings += [*check_private_names(), check_gpu()]
    findings += [check_memory(), check_disk(wanted.folder)]
    findings += [check_port(port) for port in wanted.ports]
    findings += check_loopback()
    if wanted.certificate:
        findings += check_certificate(wanted.certificate, wanted.hosts, now)
        if wanted.root_certificates:
            findings.append(check_signature(wanted.certificate, wanted.root_certificates))
    elif wanted.root_certificates:
        findings += check_certificate(wanted.root_certificates, (), now)
    if wanted.key:
        findings += check_key(wanted.key, wanted.certificate)
    if wanted.node_key:
        findings += check_node_key(wanted.node_key)
    if not wanted.superlink:
        why = "there is no --superlink to ask"
        return [
            *findings,
            Finding("superlink", "not checked", why),
            Finding("clock", "not checked", why),
        ]
    address = SuperLink.at(wanted.superlink, wanted.root_certificates, wanted.insecure)
    return [*findings, *check_proxy(address), *check_superlink(address)]


def doctor(wanted: Examination, as_json: bool) -> int:
    """Print the findings, as a table or JSON; return 1 if something is broken, else 0."""
    findings = examine(wanted)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console, table = Console(), render(findings)
        if not console.is_terminal:  # a file is as wide as its lines; rich would cut them at 80
            console = Console(width=Console(width=ANY_WIDTH).measure(table).maximum)
        console.print(table)
    return int(any(finding.status == "broken" for finding in findings))


def render(findings: Sequence[Finding]) -> Table:
    """Return the findings as a table, each with its fix below it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "status"):
        table.add_column(column, no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for finding in findings:
        status = f"[{COLOURS[finding.status]}]{finding.status}[/]"
        table.add_row(finding.name, status, _plain(finding.what))
        if finding.fix:
            table.add_row("", "", f"[bold]->[/] {_plain(finding.fix)}")
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # an IPv6 address is no markup
