"""The command ``fedagent new``."""

from pathlib import Path
from typing import Annotated

import typer

# What a command needs is imported in it.

commands = typer.Typer()


@commands.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the package: lower case, such as sleep_stages.")
    ],
    folder: Annotated[
        Path, typer.Option(help="A Flower App laid out like fedagent's, or where to start one.")
    ] = Path(),
) -> None:
    """Write an application of your own that runs as it is: task, data, config and test.

    In this repository, or in a project that this command started, it adds an application. In an
    empty folder it starts a project: with ServerApp, ClientApp and configuration around it.
    """
    from fedagent.scaffold import create  # noqa: PLC0415

    written = create(name, folder)
    own = [path for path in written if name in path.parts or path.stem == name]
    others = len(written) - len(own)
    typer.echo("\n".join(f"wrote {folder / path}" for path in own))
    if others:
        typer.echo(f"wrote {others} more: what runs it, and its configuration")
    typer.echo(
        f"""
It runs as it is{f", in {folder}" if folder != Path() else ""}:
  python -m pytest tests/clients/{name}
  fedagent run app={name}

Then make it yours: your data into clients/{name}/data.py, your model, loss and metrics into
clients/{name}/task.py, your settings into conf/app/{name}.yaml. docs/your-own-application.md
in fedagent's repository goes through it.""",
    )
