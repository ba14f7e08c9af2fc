"""What an application has to look at, beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Showcase:
    """Pictures and texts of what a trained model does, by a name that fits a file.

    Parameters
    ----------
    figures : finished Matplotlib figures.
    texts : plain texts, e.g. a sample that a language model wrote.
    """

    figures: Mapping[str, Figure] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
