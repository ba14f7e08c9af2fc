from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.page.made_up import write_run

WriteRun = Callable[..., Path]
NASTY = "</script><script>document.title='taken'</script><b>&\"'"


@pytest.fixture
def made_up(tmp_path: Path) -> WriteRun:
    """Make ``made_up(name, **options)``: the folder of a made-up run."""
    return lambda name, **options: write_run(tmp_path / name, **options)
