"""From text to numbers and back."""

from collections.abc import Sequence
from typing import Protocol

import torch

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
CHARACTERS = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1))) + "\N{EM DASH}" + UNKNOWN
"""Fixed and public: nobody's text is asked for it. Whatever else occurs is `UNKNOWN`."""


class Alphabet(Protocol):
    """What a model reads and writes."""

    size: int
    """How many numbers there are; they begin at 0."""

    def encode(self, text: str) -> torch.Tensor:
        """Return (T,) int64."""

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text."""


class Characters:
    """One number per character, see `CHARACTERS`."""

    size = len(CHARACTERS)

    def __init__(self) -> None:
        self._number = {character: number for number, character in enumerate(CHARACTERS)}

    def encode(self, text: str) -> torch.Tensor:
        """Return (T,) int64, as many as characters."""
        unknown = self._number[UNKNOWN]
        return torch.tensor([self._number.get(c, unknown) for c in text], dtype=torch.int64)

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text."""
        return "".join(CHARACTERS[number] for number in numbers)
