"""The commands of a real fleet: ``fedagent`` certificates, doctor and node."""

from pathlib import Path
from typing import Annotated

import typer

from fedagent.errors import require

# What a command needs is imported in it: a node's processes hold nothing of the doctor's.

PASSES_FLAGS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}
"""Settings of a command that leaves its words, ``--help`` included, to another program."""

commands = typer.Typer()


@commands.command()
def certificates(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or IP address of the SuperLink; repeat for more."),
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="A name for a device's key pair; repeat for more.")
    ] = None,
    directory: Annotated[Path, typer.Option(help="Where the files go.")] = Path("certificates"),
    days: Annotated[int, typer.Option(help="Validity of the server certificate.")] = 365,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a server certificate or a node key.")
    ] = False,
) -> None:
    """Make a development CA and server certificate (--host), and keys of nodes (--node)."""
    from fedagent.deployment import certificates as made  # noqa: PLC0415

    hosts, nodes = host or [], node or []
    require(
        bool(hosts or nodes),
        "Nothing to make: name the SuperLink with --host, devices with --node, or both.",
    )
    written = []
    if hosts:
        written += made.make_certificates(directory, hosts, days=days, force=force)
    if nodes:
        written += made.make_node_keys(directory, nodes, force=force)
    typer.echo(f"Wrote {', '.join(str(path) for path in written)}.\n")
    typer.echo(made.who_takes_what(directory, nodes))


@commands.command()
def doctor(
    superlink: Annotated[
        str | None, typer.Option(help="HOST:PORT of the SuperLink, as a device connects to it.")
    ] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="The CA that devices trust (ca.crt).")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="The SuperLink has no TLS.")] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="The SuperLink's own certificate (server.crt).")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (server.key).")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="A name the certificate must have; repeat for more.")
    ] = None,
    node_key: Annotated[
        Path | None, typer.Option(help="A SuperNode's private key (nodes/NAME.key).")
    ] = None,
    port: Annotated[
        list[int] | None,
        typer.Option(help="A port that Flower will listen on here; 9094 is a SuperNode's."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where results and databases go.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Check this machine and its way to a SuperLink; every finding comes with its fix."""
    from fedagent.deployment import doctor as check_up  # noqa: PLC0415

    wanted = check_up.Examination(
        superlink=superlink,
        root_certificates=root_certificates,
        insecure=insecure,
        certificate=certificate,
        key=key,
        hosts=host or [],
        node_key=node_key,
        ports=port or [],
        folder=folder,
    )
    raise typer.Exit(check_up.doctor(wanted, as_json))


@commands.command(context_settings=PASSES_FLAGS_ON)
def node(context: typer.Context) -> None:
    """Run a SuperNode whose ClientApps start warm: fedagent node [FLAGS OF flower-supernode]."""
    from fedagent.deployment.warm_node.node import node as run_node  # noqa: PLC0415

    run_node(context.args)
