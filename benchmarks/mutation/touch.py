"""Which tests run which lines: a mutant need meet only those that come by."""

import ast
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from benchmarks.mutation import rooms

FOLDER = Path("outputs/mutation")
QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:cov", "-W", "ignore")


@dataclass(frozen=True)
class Touches:
    """What each test took and ran.

    Attributes
    ----------
    seconds : by test, those that it took.
    lines : by file and line, the tests that ran it.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def tests(self, path: str, line: int) -> list[str]:
        """Return the tests that a mistake in a line must get past, quickest first.

        These are the tests that run the function around it. What stands in no function is run by
        every import: then they are those that run anything of the file, those of its room, and
        those of all settings.
        """
        by_line = self.lines.get(path, {})
        around = _function_around(path, line)
        near = {t for n in around or map(int, by_line) for t in by_line.get(str(n), ())}
        if around is None:
            own = rooms.mirror(path)
            near |= {t for t in self.seconds if t.startswith(own)}
        return sorted(near, key=lambda test: self.seconds[test])


@cache
def _functions(path: str) -> list[range]:
    """Return the bodies of all functions of a file as ranges of lines, inner ones last."""
    tree = ast.parse(Path(path).read_text())
    bodies = [
        range(node.body[0].lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    return sorted(bodies, key=len, reverse=True)


def _function_around(path: str, line: int) -> range | None:
    around = [body for body in _functions(path) if line in body]
    return around[-1] if around else None


class _Recorder:
    """Tells `coverage` which test is running, as a plugin of pytest."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        begin_s = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = round(time.perf_counter() - begin_s, 3)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        """Count what several tests share for all of them."""
        is_shared = fixturedef.scope != "function"
        if is_shared:
            self._coverage.switch_context(request.node.nodeid)
        result = yield
        if is_shared:
            self._coverage.switch_context(request._pyfuncitem.nodeid)
        return result


def record() -> Touches:
    """Run the tests once under `coverage`; the process is of no other use afterwards.

    Raises
    ------
    RuntimeError
        If a test fails without any mistake planted.
    """
    coverage = Coverage(data_file=None, config_file=False, include=rooms.sources())
    recorder = _Recorder(coverage)
    coverage.start()
    failed = pytest.main([*QUIET, "-x", *rooms.tests()], plugins=[recorder])
    coverage.stop()
    if failed:
        raise RuntimeError("The tests fail as they are; mend that before planting mistakes.")
    data, lines = coverage.get_data(), {}
    for path in rooms.sources():
        contexts = data.contexts_by_lineno(str(Path(path).resolve()))
        lines[path] = {str(n): _tests_of(found, recorder.seconds) for n, found in contexts.items()}
    return Touches(recorder.seconds, lines)


def _tests_of(contexts: Sequence[str], tests: dict[str, float]) -> list[str]:
    """Return the tests among `contexts`, and those of the files among them."""
    exact = [context for context in contexts if context in tests]
    shared = tuple(f"{c}::" for c in contexts if c and c not in tests)
    return exact + [test for test in tests if shared and test.startswith(shared)]


def file() -> Path:
    """Return where the record of the present code and tests is, or goes."""
    paths = [*rooms.sources(), *(str(p) for p in sorted(Path("tests").rglob("*.py")))]
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths))
    return FOLDER / f"touches-{digest.hexdigest()[:16]}.json"


def write(touches: Touches) -> None:
    """Keep the record for the next time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file().write_text(json.dumps(asdict(touches)))


def read() -> Touches:
    """Return what `write` kept."""
    return Touches(**json.loads(file().read_text()))
