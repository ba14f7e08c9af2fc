"""What a simulation knows at the end of a run, whatever app ran in it."""

from pathlib import Path

from rich.console import Console

from fedagent import formatting
from fedagent.statistics import Statistics

SIMULATION_FILE = "simulation.json"


def tell(statistics: Statistics, directory: Path) -> None:
    """Print how a run went, and write it to simulation.json in `directory`."""
    outcomes = statistics.by_outcome()
    down, up = formatting.size(statistics.bytes_down), formatting.size(statistics.bytes_up)
    line = " · ".join(
        [
            f"ended after {formatting.duration(statistics.now_s, statistics.is_virtual)}",
            f"{statistics.num_updates:,} updates",
            ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "no jobs",
            f"at most {statistics.concurrency:,} jobs at once",
            f"at most {statistics.at_work_max:,} nodes at work",
            f"{statistics.utilisation:.0%} of their time at work",
            f"{down} down, {up} up",
        ]
    )
    told = {
        "virtual_s": statistics.now_s,
        "num_updates": statistics.num_updates,
        "outcomes": outcomes,
        "concurrency": statistics.concurrency,
        "at_work_max": statistics.at_work_max,
        "utilisation": statistics.utilisation,
        "bytes_down": statistics.bytes_down,
        "bytes_up": statistics.bytes_up,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / SIMULATION_FILE
    path.write_text(formatting.to_json(told, indent=2) + "\n", encoding="utf-8")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{line}\nFiles: {path}")
