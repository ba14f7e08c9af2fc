r"""From a patient's findings to a vector, by what all hospitals' training patients have in common.

    x_d = (v_d - mean_d) / std_d,  m_d = 0      a number that was measured
    x_d = 0 (the mean),            m_d = 1      one that was not
    one-hot, with a place for "not recorded"    a category

What would travel in a federation is `Sums`: for each of the six measurements, how many training
patients of a hospital have it, its sum and its sum of squares. They add up to the mean and standard
deviation of all training patients and say little about one of them; with secure aggregation not
even what one hospital sent is seen. Categories are part of the form that all hospitals fill in.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clients.hospitals.data import Site

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Sums(NamedTuple):
    """What a hospital tells of its training patients, for each of M measurements."""

    count: Floats
    """(M,) patients in whom it was measured."""
    total: Floats
    """(M,)"""
    squares: Floats
    """(M,)"""


class Standard(NamedTuple):
    """Mean and standard deviation per measurement."""

    mean: Floats
    """(M,)"""
    deviation: Floats
    """(M,) > 0"""


def sums_of(site: Site, patients: Indices) -> Sums:
    """Return what a hospital sends of these patients."""
    values = site.numbers[patients]
    known = np.nan_to_num(values)
    return Sums((~np.isnan(values)).sum(0).astype(float), known.sum(0), (known**2).sum(0))


def standard_of(sums: Iterable[Sums]) -> Standard:
    """Return mean and deviation of all patients; 0 and 1 where nobody was measured."""
    count, total, squares = (np.sum(parts, axis=0) for parts in zip(*sums, strict=True))
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0)
    is_constant = variance <= 1e-12 * np.maximum(mean**2, 1)
    return Standard(mean, np.where(is_constant, 1.0, np.sqrt(variance)))


def encode(site: Site, patients: Indices, standard: Standard) -> torch.Tensor:
    """Return (N, D) float32 of these patients, D = `Site.num_features`."""
    values = site.numbers[patients]
    columns = [np.nan_to_num((values - standard.mean) / standard.deviation), np.isnan(values)]
    for column, size in enumerate(site.sizes):
        codes = site.categories[patients, column]  # MISSING = -1 is the last row of the identity
        columns.append(np.eye(size + 1)[codes])
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))
