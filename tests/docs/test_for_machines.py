"""What scripts and language models read is what the code does, and where the pages are."""

import re
from pathlib import Path

from fedagent.cli import STOPPED_BY_SIGTERM
from fedagent.errors import FedagentError

ROOT = Path(__file__).parents[2]
INDEX = (ROOT / "llms.txt").read_text(encoding="utf-8")
ENTRY = re.compile(r"^- \[([^]]+)\]\(([^)]+)\): \S.*$", re.MULTILINE)


def test_the_exit_codes_of_the_page_are_those_of_the_code():
    page = (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    raised = {kind.exit_status for kind in (FedagentError, *FedagentError.__subclasses__())}
    by_the_shell = {130, STOPPED_BY_SIGTERM}
    assert listed == {0} | raised | by_the_shell


def test_the_index_for_language_models_names_every_page_by_its_title():
    entries = {path: title for title, path in ENTRY.findall(INDEX)}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= entries.keys()
    for path in pages:
        heading = (ROOT / path).read_text(encoding="utf-8").split("\n", 1)[0]
        assert heading == f"# {entries[path]}"


def test_the_index_has_the_form_that_is_agreed_on():
    assert re.match(r"# fedagent\n\n> \S.*\n\n", INDEX)
    links = [line for line in INDEX.splitlines() if line.startswith("- ")]
    assert links
    for line in links:
        found = ENTRY.fullmatch(line)
        assert found, line
        assert (ROOT / found[2]).is_file(), line
