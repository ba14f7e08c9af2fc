"""Docstrings as Markdown: what is a section in the code is a list on the page.

The code describes a parameter in its line, ``name : what it is``, and leaves its type to the
signature. NumPy's format would read that as a type.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(\w+)\n-{3,}\n(.*?)(?=^\w+\n-{3,}\n|\Z)", re.MULTILINE | re.DOTALL)


class Markdown(griffe.Extension):
    """Rewrites the docstring of every object before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the docstring, if there is one."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Return a cleaned docstring with its sections as lists."""
    return SECTION.sub(lambda found: f"**{found[1]}**\n\n{_listed(*found.groups())}\n\n", text)


def _listed(title: str, body: str) -> str:
    """Return the entries of a section as a list, or its text where it has none."""
    between = {"Parameters": " : ", "Attributes": " : ", "Raises": "\n"}.get(title)
    entries = re.split(r"\n(?=\S)", body.strip())
    if between is None or not all(between in entry for entry in entries):
        return body.strip()
    named = (entry.split(between, 1) for entry in entries)
    return "\n".join(
        f"- `{'`, `'.join(names.split(', '))}`: {' '.join(text.split())}" for names, text in named
    )
