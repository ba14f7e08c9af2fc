"""Rules whose step is no mean leave the running statistics of normalisations to averaging."""

import numpy as np
import pytest
import torch

from fedagent import rules
from fedagent.model import FlatModel, ModelSpec
from fedagent.update import Update

ARRAYS = {
    "net.weight": np.ones((2, 2)),
    "net.norm.running_mean": np.zeros(2),
    "net.norm.running_var": np.full(2, 1e-3),
}
DELTA = [0.5, -0.5, 0.5, -0.5, 0.1, -0.1, -5e-4, 1e-3]
STATISTICS = [0.1, -0.1, 5e-4, 2e-3]  # after a whole step of them


def moved(rule):
    model = FlatModel(ModelSpec.of(ARRAYS), ARRAYS)
    delta = torch.tensor(DELTA, dtype=torch.float64)
    assert rule.receive(model, Update(1, delta, model.vector.clone(), 0))
    return model.vector


def test_a_buffer_s_mean_moves_them_under_fadas():
    vector = moved(rules.FADAS(1, server_learning_rate=0.01))
    assert vector[4:].tolist() == pytest.approx(STATISTICS)
    assert vector[:4].tolist() != pytest.approx([1.5, 0.5, 1.5, 0.5])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_running_mean_moves_them_under_ringmaster_lmo(momentum):
    vector = moved(rules.RingmasterLMO(server_learning_rate=0.01, momentum=momentum))
    begun = torch.tensor([0.0, 0.0, 1e-3, 1e-3], dtype=torch.float64)
    expected = begun + (1 - momentum) * torch.tensor(DELTA[4:], dtype=torch.float64)
    assert vector[4:].tolist() == pytest.approx(expected.tolist())


def test_a_variance_never_becomes_negative_by_a_step_of_fixed_size():
    rule, model = rules.RingmasterLMO(), FlatModel(ModelSpec.of(ARRAYS), ARRAYS)
    for _ in range(100):
        delta = torch.zeros(8, dtype=torch.float64)
        delta[6:] = 1e-5 - model.vector[6:]  # clients see a variance of 1e-5
        rule.receive(model, Update(1, delta, model.vector.clone(), 0))
    assert model.vector[6:].tolist() == pytest.approx([1e-5, 1e-5], rel=0.1)
