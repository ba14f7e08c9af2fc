"""docs/your-own-application.md, followed to the letter."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-application.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = "runtime=inline fleet.num_nodes=4 cohort=2 buffer_size=2 stopping.max_updates=4"


def do(line, folder):
    """Run a line of the page, with its program's own name, and shorter where it trains."""
    words = shlex.split(line)
    if words[:2] == ["fedagent", "run"]:
        words += [w for w in QUICK.split() if w.split("=")[0] not in line]
    here = Path(sys.executable).parent
    words[0] = {"python": sys.executable, "fedagent": str(here / "fedagent")}[words[0]]
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=folder, text=True, capture_output=True, timeout=300, env=environment, check=False
    )


@pytest.mark.slow
def test_every_step_of_the_page_works(tmp_path):
    files, lines = 0, 0
    for language, text in BLOCKS:
        path = re.match(r"# (\S+\.py)\n", text)
        if language == "python" and path:
            assert (tmp_path / path[1]).is_file(), "the page replaces what it said was written"
            (tmp_path / path[1]).write_text(text, encoding="utf-8")
            files += 1
        for line in text.splitlines() if language == "bash" else ():
            done = do(line, tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert "pytest" not in line or "8 passed" in done.stdout
            assert not line.startswith("fedagent run") or "ended: " in done.stdout
            lines += 1
    assert (files, lines) == (1, 8)


def test_the_page_names_files_that_exist():
    for name in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / name).exists(), name
    for name in re.findall(r"`((?:tests|clients)/[^`]+)`", PAGE):
        if "sleep_stages" not in name:
            assert (ROOT / name).exists(), name
