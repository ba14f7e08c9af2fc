"""What is mutated, and the tests that mirror it."""

from pathlib import Path

PURE = (
    "fedagent/rules",
    "fedagent/scheduling",
    "fedagent/nodes",
    "fedagent/mixing",
    "fedagent/stopping.py",
    "fedagent/statistics.py",
    "fedagent/model.py",
    "fedagent/update.py",
    "fedagent/proxy/ledger.py",
    "fedagent/proxy/jobs.py",
)
# Whatever has settings is held to their limits and defaults, and rules to their papers.
SETTINGS = ("tests/test_settings.py", "tests/test_defaults.py")
BESIDES = ("tests/conformance", *SETTINGS)


def sources() -> list[str]:
    """Return the files of the pure rooms, relative to the root of the repository."""
    return [
        str(path)
        for room in map(Path, PURE)
        for path in ([room] if room.suffix else sorted(room.rglob("*.py")))
    ]


def tests() -> list[str]:
    """Return the folders and files of tests that are named after `PURE`, and what stands beside."""
    return [path for path in map(_named_after, PURE) if Path(path).exists()] + list(BESIDES)


def mirror(path: str) -> tuple[str, ...]:
    """Return how the tests begin that are meant for all of a file's room."""
    room = next(room for room in PURE if path.startswith(room))
    return (_named_after(room), *SETTINGS)


def _named_after(room: str) -> str:
    mirrored = Path("tests", *Path(room).parts[1:])
    return str(mirrored.with_name(f"test_{mirrored.name}") if mirrored.suffix else mirrored)
