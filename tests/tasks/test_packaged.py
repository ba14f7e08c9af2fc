import pytest

from fedagent.errors import DataUnavailableError
from fedagent.tasks.packaged import Package

MOON = Package("moon", "The map of the moon", "fedagent[moon]", "take the sun's")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with a file of data and a module that cannot be imported."""
    (tmp_path / "moon-0.3.dist-info").mkdir()
    (tmp_path / "moon-0.3.dist-info" / "METADATA").write_text("Name: moon\nVersion: 0.3\n")
    (tmp_path / "moon").mkdir()
    (tmp_path / "moon" / "__init__.py").write_text("raise ImportError('no pandas')")
    (tmp_path / "moon" / "map.csv").write_text("1,2")
    (tmp_path / "moon_tools.py").write_text("craters = 3")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_file_is_found_without_importing_the_package(installed):
    assert MOON.path("moon/map.csv").read_text() == "1,2"
    assert MOON.version == "0.3"


def test_a_module_is_imported_when_it_is_asked_for(installed):
    assert MOON.module("moon_tools").craters == 3


@pytest.mark.parametrize(
    "use",
    [lambda: MOON.version, lambda: MOON.path("moon/map.csv"), lambda: MOON.module("moon")],
    ids=["version", "path", "module"],
)
def test_a_missing_package_says_what_it_brings_the_pip_line_and_the_other_way(use):
    with pytest.raises(DataUnavailableError) as raised:
        use()
    assert str(raised.value).startswith("The map of the moon needs moon, which")
    assert str(raised.value).endswith('run: pip install "fedagent[moon]", or take the sun\'s')


def test_a_package_that_lacks_another_says_which(installed):
    with pytest.raises(DataUnavailableError, match=r"\(no pandas\); run: pip install"):
        MOON.module("moon")


def test_a_missing_file_is_named_with_the_line_that_brings_it_back(installed, tmp_path):
    with pytest.raises(DataUnavailableError, match="it again: pip install") as raised:
        MOON.path("moon/far_side.csv")
    assert str(tmp_path / "moon" / "far_side.csv") in str(raised.value)
