import pytest
import torch
import torch.nn.functional as F

from clients.vision.model import CNN, MODELS, build
from fedagent.errors import ConfigurationError


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("channels", "size", "num_classes"),
    [
        (1, 28, 10),
        (3, 32, 10),
        (2, 10, 4),
    ],
)
def test_every_network_adapts_to_the_images(name, channels, size, num_classes):
    logits = build(name, channels, size, num_classes)(torch.rand(5, channels, size, size))
    assert logits.shape == (5, num_classes)


def test_networks_have_the_documented_sizes():
    sizes = {name: num_parameters(build(name, 1, 28, 10)) for name in MODELS}
    assert sizes == {"cnn": 121_930, "mlp": 50_890, "linear": 7_850}


def test_images_too_small_for_two_pools_are_refused():
    with pytest.raises(ConfigurationError, match="9x9"):
        CNN(size=9)


def test_pooling_before_relu_computes_the_network_of_the_mission():
    model, images = CNN(), torch.rand(4, 1, 28, 28)
    x = F.max_pool2d(F.relu(model.conv1(images)), 2)
    x = F.max_pool2d(F.relu(model.conv2(x)), 2)
    expected = model.dense2(F.relu(model.dense1(x.flatten(1))))
    assert torch.allclose(model(images), expected, atol=1e-6)


def test_the_global_seed_decides_the_initial_model():
    def weights(seed):
        torch.manual_seed(seed)
        return CNN().conv2.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
