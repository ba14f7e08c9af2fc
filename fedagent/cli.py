"""The command line: run, resume, report, watch, calibrate, and those that rooms bring along."""

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedagent.deployment.commands import PASSES_FLAGS_ON, commands
from fedagent.errors import FedagentError, require
from fedagent.scaffold.commands import commands as scaffold_commands

if TYPE_CHECKING:
    from argparse import Namespace

    from flwr.app import UserConfig
    from omegaconf import DictConfig

    from fedagent.simulation.flower_app import FlowerApp

# What a command needs is imported in it: a simulation brings PyTorch, which fedagent node, for
# one, must not hold in memory.

cli = typer.Typer(
    help="Asynchronous federated learning on Flower.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
STOPPED_BY_SIGTERM = 143
"""The exit status that a shell gives a process that SIGTERM ends."""
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
AsJson = Annotated[bool, typer.Option("--json", help="End with a line of JSON for scripts.")]


@cli.command(context_settings=PASSES_FLAGS_ON)
def run(context: typer.Context, as_json: AsJson = False) -> None:
    """Run the Flower App in this folder on a simulated fleet: fedagent run [OVERRIDES] [FLAGS]."""
    import hydra  # noqa: PLC0415

    from fedagent.config import choices, flags, parse_arguments  # noqa: PLC0415
    from fedagent.report.resuming import with_earlier_words  # noqa: PLC0415
    from fedagent.scaffold.reference import FLOWER_APP, reference_folder  # noqa: PLC0415
    from fedagent.simulation.flower_app import FlowerApp, take_run_config, usage  # noqa: PLC0415

    sys.path.insert(0, str(Path.cwd()))
    app = FlowerApp.found_in(Path.cwd())
    sys.argv = ["fedagent run"]  # what Hydra calls the program
    run_config, words = take_run_config(with_earlier_words(context.args))
    asked = parse_arguments(words)
    if app.has_conf:
        require(
            not run_config, "--run-config: this app is configured by words such as seed=3 alone."
        )
        config_dir, settings = app.folder / "conf", None
    else:
        config_dir, settings = reference_folder() / "conf", app.run_config(run_config)
        asked.config_name = asked.config_name or FLOWER_APP
        app.check_words(asked.overrides, choices(config_dir))
    if asked.help:
        typer.echo(usage(choices(config_dir), settings))
        return
    _check(asked, config_dir)
    # In the one order that Hydra reads: it stops at the first flag that overrides stand around.
    sys.argv += [*asked.overrides, *_own_folder(asked, config_dir), *flags(asked)]

    def job(cfg: "DictConfig") -> None:
        try:
            _simulate(app, cfg, asked, settings, as_json)
        except FedagentError as error:  # before Hydra turns it into a traceback
            errors.print(f"fedagent: {error}")
            sys.exit(error.exit_status)

    hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")(job)()


@cli.command(context_settings={"allow_extra_args": True})
def resume(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Output folder of a run with checkpoints.")],
    as_json: AsJson = False,
) -> None:
    """Let a simulated run go on from its newest checkpoint: fedagent resume DIR [OVERRIDES].

    It is the run that it was; stopping, runtime, checkpoint and who watches it may change.
    """
    context.args = [f"resume={directory}", *context.args]
    run(context, as_json)


@cli.command()
def report(
    directories: Annotated[list[Path], typer.Argument(help="Output folders, searched deeply.")],
    figure: Annotated[Path | None, typer.Option(help="Where the figure goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write one page of all runs there, and nothing else.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the jobs of a run there, for Perfetto.")
    ] = None,
) -> None:
    """Compare finished runs: a table, and a figure of metric against virtual time; or a page.

    --html FILE shows runs that are going on or were killed, too; --trace FILE takes one run.
    """
    from fedagent.report import command  # noqa: PLC0415

    if html is None and trace is None:
        raise typer.Exit(command.report(directories, figure, as_json))
    if html is not None:
        typer.echo(command.write_html(directories, html))
    if trace is not None:
        typer.echo(command.write_trace(directories, trace))


@cli.command()
def watch(
    directory: Annotated[Path, typer.Argument(help="Output folder of a run, also of one to come.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 for one that is free.")] = 8917,
    fd: Annotated[int | None, typer.Option("--socket", hidden=True)] = None,
) -> None:
    """Show a run while it goes on, in a browser on this machine, until Ctrl-C.

    It reads the run's files alone: the folder may be another machine's, mounted or copied here.
    """
    from fedagent.report.page.live import watch as serve  # noqa: PLC0415

    serve(directory, port, fd)


@cli.command()
def calibrate(
    directory: Annotated[Path, typer.Argument(help="Output folder of a run, searched deeply.")],
    output: Annotated[
        Path | None, typer.Option(help="The CSV file; by default devices.csv in the folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Turn what a run's jobs took into the devices of a simulated fleet, a file for fleet=trace.

    Of every node: seconds per local step, and a bandwidth if its jobs were of two sizes or more.
    """
    from fedagent.report.calibration import write_devices  # noqa: PLC0415

    typer.echo(write_devices(directory, output, force))


cli.add_typer(commands)
cli.add_typer(scaffold_commands)


def main() -> None:
    """Run the command line; an error of ours is one message, not a traceback."""
    try:
        cli()
    except FedagentError as error:
        errors.print(f"fedagent: {error}")
        sys.exit(error.exit_status)


def _simulate(
    app: "FlowerApp",
    cfg: "DictConfig",
    asked: "Namespace",
    settings: "UserConfig | None",
    as_json: bool,
) -> None:
    """Run the app, with the run config `settings` if it is not one that Hydra configures."""
    from hydra.core.hydra_config import HydraConfig  # noqa: PLC0415

    from fedagent.config import flags, instantiate  # noqa: PLC0415
    from fedagent.report import simulated  # noqa: PLC0415
    from fedagent.report.command import show  # noqa: PLC0415
    from fedagent.report.folder import require_free  # noqa: PLC0415
    from fedagent.report.last_line import json_at_end  # noqa: PLC0415
    from fedagent.simulation import run_simulation  # noqa: PLC0415

    # The display says what a terminal should; Flower's own lines would tear it apart. Where there
    # is none of ours, they are the display.
    is_quiet = bool(cfg.display) is (settings is None)
    logging.getLogger("flwr").setLevel(logging.WARNING if is_quiet else logging.INFO)
    logging.getLogger("flwr").propagate = False  # Hydra's root handler would say it all again
    job = HydraConfig.get()
    goes_on = cfg.get("resume") is not None
    folder = Path(cfg.output_dir or job.runtime.output_dir)
    output_dir = require_free(folder, cfg.overwrite or goes_on)
    # Whatever says where configurations come from must reach the apps, which compose once more.
    words = [flag for flag in flags(asked) if flag.startswith("--config-")]
    words += [o for o in job.overrides.hydra if o.startswith("hydra.searchpath=")]
    words += [o for o in job.overrides.task if not o.startswith("output_dir=")]
    overrides: UserConfig = {"overrides": shlex.join([*words, f"output_dir='{output_dir}'"])}
    with json_at_end(output_dir, as_json):
        result = run_simulation(
            app.serverapp,
            app.clientapp,
            fleet=instantiate(cfg.fleet),
            seed=cfg.seed,
            runtime=instantiate(cfg.runtime),
            run_config=overrides if settings is None else settings,
        )
        if settings is not None:
            simulated.tell(result.statistics, output_dir)
            return
        if not (output_dir / "summary.json").is_file():  # an app of your own need not write one
            return
        if show(output_dir).end.kind == "stopped":  # a sweep does not go on to its next job either
            sys.exit(STOPPED_BY_SIGTERM)


def _check(asked: "Namespace", config_dir: Path) -> None:
    """Compose what is asked for before Hydra does, whose own words for a misspelling are many.

    Raises
    ------
    ConfigurationError
        If flags exclude each other, or an override does not fit.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415

    from fedagent.config import check, choices, compose, flags  # noqa: PLC0415
    from fedagent.simulation.sweeps import jobs  # noqa: PLC0415

    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    chosen = [f"--{mode.replace('_', '-')}" for mode in modes if getattr(asked, mode)]
    require(len(chosen) <= 1, f"{' and '.join(chosen)} exclude each other; keep one of them.")
    require(not asked.resolve or bool(asked.cfg), "--resolve goes with --cfg; add --cfg=job.")
    if asked.hydra_help or asked.shell_completion:
        return
    words = asked.overrides
    where = [flag for flag in flags(asked) if flag.startswith("--config-")]
    for word in [word for word in words if word.startswith("~")]:
        key = word[1:].split("=")[0]
        require(
            key not in compose(shlex.join(where), config_dir),
            f"{word} takes away what a run needs; choose another value, or none if there is one.",
        )
    taken: set[str] = set()
    for job in jobs(words, choices(config_dir)) if _is_sweep(asked) else [words]:
        cfg = compose(shlex.join([*where, *job]), config_dir)
        is_told = "output_dir" in cfg and not OmegaConf.is_interpolation(cfg, "output_dir")
        if folder := cfg.output_dir if is_told else None:
            require(
                folder not in taken,
                f"output_dir={folder} is one folder for several jobs of the sweep; say "
                f"hydra.sweep.dir={folder}, in which each gets its own.",
            )
            taken.add(folder)
        if not (asked.cfg or asked.info):
            check(cfg, follow=False)  # a job's own code may bring resolvers of its own


def _own_folder(asked: "Namespace", config_dir: Path) -> list[str]:
    """Return the override that gives Hydra a folder which no other run has; it is made here.

    Hydra writes into the folder that it names by the second, whoever else does.
    """
    from hydra.core.hydra_config import HydraConfig  # noqa: PLC0415

    from fedagent.config import Source, choices  # noqa: PLC0415
    from fedagent.report.folder import CONFIG_FILE, next_free  # noqa: PLC0415
    from fedagent.simulation.sweeps import jobs  # noqa: PLC0415

    if any((asked.cfg, asked.info, asked.hydra_help, asked.shell_completion)):
        return []  # nothing runs
    key, first_file, words = "run", CONFIG_FILE, asked.overrides
    if _is_sweep(asked):
        key, first_file, words = "sweep", "multirun.yaml", next(jobs(words, choices(config_dir)))
    cfg = Source.named_by(asked, config_dir).compose(words)
    if cfg.get("resume") is not None:
        return [f"hydra.run.dir='{cfg.output_dir}'"]
    HydraConfig.instance().set_config(cfg)  # which ${hydra:...} in a folder's name reads
    wanted = Path(cfg.hydra[key].dir)
    folder = wanted.absolute() if cfg.overwrite else next_free(wanted, first_file)
    return [f"hydra.{key}.dir='{folder}'"]


def _is_sweep(asked: "Namespace") -> bool:
    return asked.multirun or "hydra.mode=MULTIRUN" in asked.overrides
