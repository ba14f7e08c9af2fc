"""What a run leaves behind, and how runs are compared."""

from fedagent.report.command import report
from fedagent.report.compare import Row, Spread, compare
from fedagent.report.exhibits import Exhibits
from fedagent.report.figure import plot_runs
from fedagent.report.recorder import Recorder
from fedagent.report.runs import RunRecord, find_runs, read_run
from fedagent.report.table import render, to_json

__all__ = [
    "Exhibits",
    "Recorder",
    "Row",
    "RunRecord",
    "Spread",
    "compare",
    "find_runs",
    "plot_runs",
    "read_run",
    "render",
    "report",
    "to_json",
]
