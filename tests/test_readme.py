"""The newcomer's page: short, and its example runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_it_stands(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    end, virtual_s = done.stdout.strip().splitlines()[-2:]
    assert end.startswith("50 rounds: [")
    numbers = [float(word) for word in re.findall(r"0\.\d+", end)]
    assert len(numbers) == 3
    assert all(abs(number - 0.5) < 0.2 for number in numbers)
    assert re.fullmatch(r"\d+ virtual s", virtual_s)


def test_it_is_a_newcomers_page():
    assert len(README.splitlines()) <= 110
    rows = re.search(r"\| what \| result.*?\n\n", README, re.DOTALL)[0].splitlines()
    assert len(rows) - 3 <= 8


def test_every_page_it_names_exists_and_every_page_is_named():
    named = set(re.findall(r"\]\((docs/[^)#]+|[A-Z]+\.md)", README))
    assert all((ROOT / page).is_file() for page in named)
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= named
