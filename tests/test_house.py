"""The house: few rooms, short files, and a map that tells of every room."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for folder in ("fedagent", "clients") for p in (ROOT / folder).rglob("*.py"))


def test_no_file_is_longer_than_300_lines():
    long = {
        str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 300
    }
    assert not long, "divide them: a file has one reason to change"


def test_few_rooms_and_few_files_beside_them():
    inside = [p for p in (ROOT / "fedagent").iterdir() if p.name != "__pycache__"]
    assert len([p for p in inside if p.is_dir()]) <= 19
    assert len([p for p in inside if p.suffix == ".py"]) <= 13


@pytest.mark.parametrize(
    "name",
    [p.stem for p in sorted((ROOT / "fedagent").iterdir()) if p.suffix == ".py" or p.is_dir()],
)
def test_the_map_names_everything_in_the_house(name):
    if name.startswith("__"):
        return
    map_ = (ROOT / "docs" / "architecture.md").read_text()
    assert f"`{name}/`" in map_ or f"`{name}`" in map_


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_room_without_a_name_of_its_own(name):
    assert not [p for p in FILES if name in (p.stem, p.parent.name)]
