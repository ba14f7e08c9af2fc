"""Survivors that no test can or should kill, each with its reason.

A judgement names the change, not the line, so that it holds until the code itself changes.
"""

import tomllib
from pathlib import Path

from benchmarks.mutation.mutants import Mutant

FILE = Path(__file__).with_name("judged.toml")


def reasons() -> dict[tuple[str, str, str], str]:
    """Return why a change makes no difference, by path, code before and code after."""
    entries = tomllib.loads(FILE.read_text())["mutant"]
    return {(e["path"], e["before"], e["after"]): e["why"] for e in entries}


def entry(mutant: Mutant) -> str:
    """Return the lines that a judgement begins with, to be completed by hand."""
    before, after = mutant.change
    return (
        f"[[mutant]]\npath = '{mutant.path}'\nbefore = '''{before}'''\nafter = '''{after}'''\n"
        'why = ""\n'
    )
