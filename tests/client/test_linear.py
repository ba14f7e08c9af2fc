"""Dense layers of many clients: PyTorch's own results, whatever the shapes."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from fedagent.client.linear import FastLinear

N = 3


@pytest.mark.parametrize("axes", [(), (4,), (2, 4)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_each_client_alone(axes, has_bias):
    torch.manual_seed(1)
    x = torch.randn(N, *axes, 5, requires_grad=True)
    weight = torch.randn(N, 6, 5, requires_grad=True)
    bias = [torch.randn(N, 6, requires_grad=True)] if has_bias else []
    inputs = [x, weight, *bias]
    with FastLinear():
        y = vmap(F.linear)(*inputs)
    expected = torch.stack([F.linear(*(t[k] for t in inputs)) for k in range(N)])
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(
        torch.autograd.grad(y.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (1, 0)])
def test_what_clients_share_and_other_axes_of_theirs_are_understood(in_dims):
    torch.manual_seed(1)
    shape = {0: (N, 4, 5), 1: (4, N, 5), None: (4, 5)}[in_dims[0]]
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(*((N,) if in_dims[1] == 0 else ()), 6, 5, requires_grad=True)
    with FastLinear():
        y = vmap(F.linear, in_dims=in_dims)(x, weight)
    expected = vmap(F.linear, in_dims=in_dims)(x, weight)
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(
        torch.autograd.grad(y.sum(), (x, weight)),
        torch.autograd.grad(expected.sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
