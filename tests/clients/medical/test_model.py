import pytest
import torch

from clients.medical.model import NORMS, Residual, Standardise, build
from fedagent.errors import ConfigurationError


def test_standardised_images_have_mean_zero_and_variance_one():
    images = torch.rand(3, 2, 8, 8) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1, 1) + 2
    out = Standardise()(images)
    assert torch.allclose(out.mean((1, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.var((1, 2, 3), correction=0), torch.ones(3), atol=1e-2)


def test_a_constant_image_becomes_zero():
    assert torch.equal(Standardise()(torch.full((1, 1, 8, 8), 0.5)), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("channels", "size", "num_classes"), [(1, 64, 2), (3, 28, 9)])
def test_images_become_logits(norm, channels, size, num_classes):
    images = torch.rand(4, channels, size, size)
    assert build(channels, num_classes, norm)(images).shape == (4, num_classes)


def test_the_number_of_parameters_is_as_documented():
    # The convolutions of stem and blocks, two for each normalised channel, the dense layer.
    for norm in NORMS:
        assert (
            sum(p.numel() for p in build(1, 2, norm).parameters())
            == 72 + 1_152 + 3_584 + 14_336 + 2 * 120 + 66
        )


def test_only_batch_norm_brings_state_beside_parameters():
    assert not list(build(1, 2, "group").buffers())
    names = {name.rsplit(".", 1)[-1] for name, _ in build(1, 2, "batch").named_buffers()}
    assert names == {"running_mean", "running_var", "num_batches_tracked"}


def test_a_residual_block_with_dead_convolutions_is_its_shortcut():
    block = Residual(8, 8, 1, "group")
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="width=6"):
        build(1, 2, width=6)
