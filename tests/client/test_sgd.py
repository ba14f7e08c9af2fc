import subprocess
import sys

import pytest
import torch
from torch import nn

from fedagent.client.sgd import SGD

SETTINGS = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01},
]


def trained(optimizer, settings, model, rows):
    torch.manual_seed(0)
    network = model()
    optimizer = optimizer(network.parameters(), **settings)
    for row in rows:
        optimizer.zero_grad()
        network(row).square().mean().backward()
        optimizer.step()
    return list(network.parameters())


def dense():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def partly_frozen():
    network = dense()
    network[0].requires_grad_(False)
    return network


def sparse():
    return nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("model", [dense, partly_frozen])
def test_every_step_is_pytorchs_to_the_last_bit(model, settings):
    rows = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = (trained(o, settings, model, rows) for o in (SGD, torch.optim.SGD))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_sparse_gradients_move_what_pytorch_moves(settings):
    rows = torch.tensor([[0, 1], [3, 3], [0, 4]])
    ours, theirs = (trained(o, settings, sparse, rows) for o in (SGD, torch.optim.SGD))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_gradient_scaler_can_work_with_it():
    x = torch.ones(3, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = SGD([x], lr=0.5)
    scaler.scale(x.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert x.tolist() == [0.5, 0.5, 0.5], "a gradient of 1, its scale taken out again"
    optimizer.zero_grad()
    scaler.scale(x.sum() * torch.inf).backward()
    scaler.step(optimizer)
    assert x.tolist() == [0.5, 0.5, 0.5], "an overflow moves nothing"


def test_training_imports_no_compiler():
    """The compiler takes 2 s and 160 MB in each process of each device."""
    program = """
import sys
import torch
from fedagent.client import LocalTraining, train
from tests.client.quadratic import QuadraticTask

task, training = QuadraticTask(), LocalTraining(momentum=0.9)
train(task, task.build_model(), task.batches(0, 1), training, torch.device("cpu"))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
