"""``fedagent report``: finished runs side by side, as a table or JSON, and as a figure."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedagent import formatting
from fedagent.errors import DataUnavailableError, FedagentError, require
from fedagent.report.compare import Row, compare
from fedagent.report.figure import plot_runs
from fedagent.report.recorder import MODEL_FILE, PAGE_FILE, PLOT_FILE
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE, RunRecord, find_runs, read_run
from fedagent.report.table import render, render_in_two, to_json
from fedagent.stopping import Baseline, Metric

FIGURE_FILE = "comparison.png"
ANY_WIDTH = 10_000


def report(paths: list[Path], figure: Path | None, as_json: bool) -> int:
    """Print the comparison of the runs in `paths` and draw it; return the exit code.

    Parameters
    ----------
    paths : output folders, searched recursively.
    figure : where the PNG goes; by default comparison.png in the folder that holds all `paths`, if
        matplotlib is installed.
    as_json : print JSON on the standard output and everything else on the standard error.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        runs = find_runs(paths)
        rows = compare(runs)
        if as_json:
            print(to_json(rows))
        else:
            _print_table(rows)
        if any(run.curve for run in runs):
            target = figure or _common_parent(paths) / FIGURE_FILE
            try:
                plot_runs(runs, target)
                errors.print(f"Figure: {target}")
            except DataUnavailableError as error:
                if figure:  # asked for, not only offered
                    raise
                errors.print(f"No figure: {error}")
        else:
            errors.print("No figure: no run has a value of its metric.")
    except (FedagentError, OSError) as error:
        errors.print(f"fedagent report: {error}")
        return 2
    return 0


def write_html(paths: list[Path], target: Path) -> str:
    """Write one page of all runs in `paths`; return where to look.

    Raises
    ------
    ConfigurationError
        If a path holds no run.
    DataUnavailableError
        If Bokeh is not installed.
    OutputError
        If the file cannot be written.
    """
    from fedagent.report.page.write import write_page  # noqa: PLC0415

    num_runs = write_page(paths, target)
    return f"{num_runs:,} {'run' if num_runs == 1 else 'runs'}: {target.resolve().as_uri()}"


def write_trace(paths: list[Path], target: Path) -> str:
    """Write the jobs of the one run in `paths` as a Chrome trace; return where it is.

    Raises
    ------
    ConfigurationError
        If there are several runs, or none that tells of its jobs.
    OutputError
        If the file cannot be written.
    """
    from fedagent.report import trace  # noqa: PLC0415
    from fedagent.report.page.write import runs_in  # noqa: PLC0415

    runs = runs_in(paths)
    require(len(runs) == 1, f"--trace takes one run, and there are {len(runs):,}; name its folder.")
    num_jobs = trace.write_trace(runs[0], target)
    return f"{num_jobs:,} jobs: {target} (open it at ui.perfetto.dev)"


def show(directory: Path) -> RunRecord:
    """Print the table of one finished run, and where its files are; return the run."""
    run = read_run(directory)
    _print_table(compare([run]))
    plots = sorted((directory / PLOT_FILE).parent.glob("[!.]*"))
    files = [directory / file for file in (SUMMARY_FILE, METRICS_FILE, MODEL_FILE)] + plots
    written = [file.relative_to(directory).as_posix() for file in files if file.exists()]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if run.baseline and run.final_value is not None:
        console.print(_against(run.baseline, run.metric, run.final_value))
    console.print(f"Files: {directory} ({', '.join(written)})")
    if (page := directory / PAGE_FILE).exists():
        console.print(f"Look: {page.resolve().as_uri()}")
    return run


def _against(baseline: Baseline, metric: Metric, value: float) -> str:
    """Return "mae: week before 64.5, this run 60.2", and whether that beats it."""
    simple, own = formatting.number(baseline.value, 4), formatting.number(value, 4)
    verdict = "better" if metric.is_better(value, baseline.value) else "NOT better"
    return f"{metric.name}: {baseline.name} {simple}, this run {own}: {verdict}"


def _print_table(rows: Sequence[Row]) -> None:
    console, table = Console(), render(rows)
    width = Console(width=ANY_WIDTH).measure(table).maximum
    if not console.is_terminal:  # a file is as wide as its lines; rich would cut them at 80
        Console(width=width).print(table)
    else:
        console.print(table if width <= console.width else render_in_two(rows))


def _common_parent(paths: Sequence[Path]) -> Path:
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    # Folders far apart share little more than the root, where nobody looks for a figure.
    return common if os.access(common, os.W_OK) and common != Path(common.anchor) else paths[0]
