"""What is mutated, and the tests that mirror it."""

from pathlib import Path

PURE = (
    "fedagent/rules",
    "fedagent/scheduling",
    "fedagent/nodes",
    "fedagent/mixing",
    "fedagent/staleness.py",
    "fedagent/stopping.py",
    "fedagent/statistics.py",
    "fedagent/model.py",
    "fedagent/update.py",
    "fedagent/proxy/ledger.py",
    "fedagent/proxy/jobs.py",
)
# Rules are held to their papers, and what has settings to their limits and defaults.
BESIDES = ("tests/conformance", "tests/test_settings.py", "tests/test_defaults.py")


def sources() -> list[str]:
    """Return the files of the pure rooms, relative to the root of the repository."""
    return [
        str(path)
        for room in map(Path, PURE)
        for path in ([room] if room.suffix else sorted(room.rglob("*.py")))
    ]


def tests() -> list[str]:
    """Return the folders and files of tests that are named after `PURE`, and what stands beside."""
    mirrored = [Path("tests", *Path(room).parts[1:]) for room in PURE]
    named = [p.with_name(f"test_{p.name}") if p.suffix else p for p in mirrored]
    return [str(path) for path in named if path.exists()] + list(BESIDES)
