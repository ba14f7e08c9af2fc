"""A model that only its rule understands: arrays that are kept as they are."""

import numpy as np
import torch

from fedagent.rules.opaque import OpaqueModel


def test_nothing_in_it_is_averaged_or_carried():
    model = OpaqueModel({"trees": np.arange(3, dtype=np.uint8)})
    assert model.arrays()["trees"].tolist() == [0, 1, 2]
    assert (len(model.vector), model.carried, model.version) == (0, {}, 0)
    assert model.spec.arrays == ()


def test_it_keeps_its_arrays_when_the_mapping_they_came_in_is_used_again():
    given = {"trees": np.zeros(2)}
    model = OpaqueModel(given)
    given["trees"] = np.ones(5)
    assert list(model.arrays()) == ["trees"]
    assert model.arrays()["trees"].tolist() == [0.0, 0.0]


def test_its_state_is_a_snapshot_of_arrays_of_any_form():
    model, resumed = OpaqueModel({"trees": np.zeros(2)}), OpaqueModel({"other": np.ones((3, 3))})
    model.version = 7
    state = model.state_dict()
    model.arrays()["trees"][:] = 9.0
    resumed.load_state_dict(state)
    assert (resumed.version, list(resumed.arrays())) == (7, ["trees"])
    resumed.arrays()["trees"][:] = -1.0
    assert torch.equal(state["contents"]["trees"], torch.zeros(2, dtype=torch.float64))
