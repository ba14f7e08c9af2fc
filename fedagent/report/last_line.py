"""The last line of ``fedagent run --json``: what a run has come to, for scripts and agents."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedagent.formatting import to_json
from fedagent.report.runs import SUMMARY_FILE
from fedagent.report.simulated import SIMULATION_FILE


@contextmanager
def json_at_end(folder: Path, is_asked: bool) -> Iterator[None]:
    """Print a JSON object in one line when what is inside has ended, however it did.

    It has ``output_dir``, and all of the summary that the run has written: summary.json, or
    simulation.json of an app that fedagent does not configure. A run that failed before that wrote
    none, and what an earlier run left in the folder is not told.

    Parameters
    ----------
    folder : the run's output folder.
    is_asked : whether anything is printed.
    """
    files = [folder / name for name in (SUMMARY_FILE, SIMULATION_FILE)]
    before = [_written_at(file) for file in files]
    try:
        yield
    finally:
        if is_asked:
            told: dict[str, Any] = {"output_dir": str(folder.absolute())}
            for file, earlier in zip(files, before, strict=True):
                if _written_at(file) != earlier:
                    told |= json.loads(file.read_text(encoding="utf-8"))
            print(to_json(told), flush=True)


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None
