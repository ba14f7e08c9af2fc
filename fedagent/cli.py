"""The command line: ``fedagent`` run, report, new, certificates, doctor and node."""

import logging
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedagent.deployment.commands import PASSES_FLAGS_ON, commands
from fedagent.errors import ConfigurationError, FedagentError, require

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What a command needs is imported in it: fedagent.config brings PyTorch, which fedagent node, for
# one, must not hold in memory.

cli = typer.Typer(
    help="Asynchronous federated learning on Flower.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class FlowerApp:
    """The Flower App in a folder: its components and its Hydra configuration."""

    serverapp: str
    clientapp: str
    config_dir: Path

    @classmethod
    def found_in(cls, folder: Path) -> "FlowerApp":
        """Read ``[tool.flwr.app.components]`` from the folder's pyproject.toml.

        Raises
        ------
        ConfigurationError
            If the folder holds no Flower App, or one without conf/config.yaml.
        """
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            components = project["tool"]["flwr"]["app"]["components"]
            app = cls(components["serverapp"], components["clientapp"], folder / "conf")
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(
                f"{folder} is not a Flower App ({error!r}); change to the folder whose "
                "pyproject.toml has [tool.flwr.app.components]."
            ) from error
        require(
            (app.config_dir / "config.yaml").is_file(),
            f"{app.config_dir / 'config.yaml'} is missing: `fedagent run` takes its fleet and "
            "strategy from there.",
        )
        return app


@cli.command(context_settings=PASSES_FLAGS_ON)
def run(context: typer.Context) -> None:
    """Run the Flower App in this folder on a simulated fleet: fedagent run [OVERRIDES]."""
    import hydra  # noqa: PLC0415

    sys.path.insert(0, str(Path.cwd()))
    app = FlowerApp.found_in(Path.cwd())
    if {"--help", "-h"} & set(context.args):
        typer.echo(_usage(app))
        return
    _check(context.args, app.config_dir)
    sys.argv = ["fedagent run", *context.args]

    def job(cfg: "DictConfig") -> None:
        try:
            _simulate(app, cfg)
        except FedagentError as error:  # before Hydra turns it into a traceback
            errors.print(f"fedagent: {error}")
            sys.exit(2)

    hydra.main(version_base="1.3", config_path=str(app.config_dir), config_name="config")(job)()


@cli.command()
def report(
    directories: Annotated[list[Path], typer.Argument(help="Output folders, searched deeply.")],
    figure: Annotated[Path | None, typer.Option(help="Where the figure goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Compare finished runs: a table, and a figure of metric against virtual time."""
    from fedagent.report.command import report as compare_runs  # noqa: PLC0415

    raise typer.Exit(compare_runs(directories, figure, as_json))


@cli.command()
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


cli.add_typer(commands)


def main() -> None:
    """Run the command line; an error of ours is one message, not a traceback."""
    try:
        cli()
    except FedagentError as error:
        errors.print(f"fedagent: {error}")
        sys.exit(2)


def _simulate(app: FlowerApp, cfg: "DictConfig") -> None:
    from hydra.core.hydra_config import HydraConfig  # noqa: PLC0415

    from fedagent.config import instantiate  # noqa: PLC0415
    from fedagent.report.command import show  # noqa: PLC0415
    from fedagent.simulation import run_simulation  # noqa: PLC0415

    # The display says what a terminal should; Flower's own lines would tear it apart.
    logging.getLogger("flwr").setLevel(logging.WARNING if cfg.display else logging.INFO)
    logging.getLogger("flwr").propagate = False  # Hydra's root handler would say it all again
    job = HydraConfig.get()
    output_dir = cfg.output_dir or job.runtime.output_dir
    overrides = [o for o in job.overrides.task if not o.startswith("output_dir=")]
    run_simulation(
        app.serverapp,
        app.clientapp,
        fleet=instantiate(cfg.fleet),
        seed=cfg.seed,
        runtime=instantiate(cfg.runtime),
        run_config={"overrides": shlex.join([*overrides, f"output_dir='{output_dir}'"])},
    )
    if (Path(output_dir) / "summary.json").is_file():  # an app of your own need not write one
        show(Path(output_dir))


def _check(arguments: list[str], config_dir: Path) -> None:
    """Compose once before Hydra takes over, so that a misspelt override is explained."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: PLC0415

    from fedagent.config import compose  # noqa: PLC0415

    words = [a for a in arguments if not a.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(words)
    single = [w for w, o in zip(words, parsed, strict=True) if not o.is_sweep_override()]
    swept = [
        f"{o.key_or_group}={next(o.sweep_string_iterator())}"
        for o in parsed
        if o.is_sweep_override()
    ]
    compose(shlex.join(single + swept), config_dir)


def _usage(app: FlowerApp) -> str:
    from fedagent.config import choices  # noqa: PLC0415

    groups = "\n".join(
        f"  {group:<11} {', '.join(names)}" for group, names in choices(app.config_dir).items()
    )
    return f"""Usage: fedagent run [OVERRIDES] [-m]

Run the Flower App in this folder on a simulated fleet.

Groups and their choices (strategy=fedasync):
{groups}

Any value can be set (strategy.buffer_size=20) and swept with -m (-m seed=1,2,3).
  --cfg job     print the configuration and exit
  --hydra-help  Hydra's own options
"""
