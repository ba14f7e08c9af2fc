"""The server's own training on examples that it trusts."""

from itertools import islice

import numpy as np
import pytest
import torch

from clients.recommendation import RecommendationTask
from clients.vision import VisionTask
from fedagent.client import LocalTraining, TrustedTraining
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec


def fresh(task) -> FlatModel:
    torch.manual_seed(3)
    arrays = {name: t.numpy().copy() for name, t in task.build_model().state_dict().items()}
    return FlatModel(ModelSpec.of(arrays), arrays)


def test_its_step_is_that_of_plain_descent_on_its_batches():
    task = VisionTask(model="linear", num_partitions=2)
    training = LocalTraining(learning_rate=0.1, local_steps=3, batch_size=16)
    model = fresh(task)
    before = model.vector.clone()
    step = TrustedTraining(task, training, num_batches=2, seed=5)

    torch.manual_seed(99)
    state = torch.get_rng_state()
    found = step(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.vector, before)
    assert torch.equal(step(model), found)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = task.build_model()
        batches = list(islice(task.public_batches(16), 2))
    module.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in model.arrays().items()})
    for batch in (batches[0], batches[1], batches[0]):
        module.zero_grad()
        task.loss(module, batch).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.1 * parameter.grad)
    expected = torch.cat([t.reshape(-1) for t in module.state_dict().values()]) - before
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.norm()) > 0.01


def test_a_task_whose_model_is_partly_on_its_nodes_is_refused():
    with pytest.raises(ConfigurationError, match="keeps a part of its model on its nodes"):
        TrustedTraining(RecommendationTask(num_partitions=3), LocalTraining())
