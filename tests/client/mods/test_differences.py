"""What is averaged is moved, whatever its numbers are; all else is passed on."""

import numpy as np
import pytest

from fedagent.client.mods.differences import moved


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_numbers_with_a_fraction_are_moved_by_what_training_changed(dtype):
    unit = 1j if dtype.startswith("complex") else 1
    dispatched, start, trained = ({"w": np.array([n * unit], dtype)} for n in (10, 4, 7))
    found = moved(dispatched, start, trained)["w"]
    assert found.dtype == dtype
    assert found.tolist() == [13 * unit]


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_all_else_is_what_the_node_has(dtype):
    dispatched, start, trained = ({"n": np.array([n], dtype)} for n in (0, 0, 1))
    assert moved(dispatched, start, trained)["n"] is trained["n"]
