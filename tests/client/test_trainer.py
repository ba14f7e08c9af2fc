from itertools import islice

import pytest
import torch

from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from tests.client.quadratic import QuadraticTask

CPU = torch.device("cpu")


def trained(task=None, **settings):
    task = task or QuadraticTask(start=(4.0, 1.0))
    training = LocalTraining(**settings)
    model = task.build_model()
    metrics = train(task, model, task.batches(0, training.batch_size), training, CPU)
    return model.y.detach(), metrics, task


@pytest.mark.parametrize("local_steps", [1, 3, 8])
def test_exactly_the_asked_number_of_batches_is_used(local_steps):
    task = QuadraticTask()
    _, metrics, _ = trained(task, local_steps=local_steps)
    assert task.batches_drawn == local_steps
    assert metrics["local-steps"] == local_steps


def test_sgd_makes_the_steps_of_the_formula():
    y, metrics, _ = trained(learning_rate=0.5, local_steps=2)
    # |y - 1| halves with each step: 3 -> 1.5 -> 0.75; losses 4.5 and 1.125.
    assert torch.allclose(y, torch.tensor([1.75, 1.0]))
    assert metrics["train-loss"] == pytest.approx((4.5 + 1.125) / 2)


def test_proximal_term_pulls_towards_the_dispatched_model_and_not_into_the_reported_loss():
    lr, rho = 0.5, 0.3
    y, metrics, _ = trained(learning_rate=lr, local_steps=2, proximal_mu=rho)
    first = 4.0 - lr * (4.0 - 1.0)
    second = first - lr * ((first - 1.0) + rho * (first - 4.0))
    assert y.tolist() == pytest.approx([second, 1.0])
    assert metrics["train-loss"] == pytest.approx((4.5 + 1.125) / 2)


def test_strong_proximal_term_converges_to_the_closed_form():
    # min_y (y - 1)^2 / 2 + rho (y - 4)^2 / 2  is at  (1 + 4 rho) / (1 + rho)
    y, _, _ = trained(learning_rate=0.1, local_steps=200, proximal_mu=2.0)
    assert y.tolist() == pytest.approx([3.0, 1.0], abs=1e-5)


def test_clipping_bounds_the_gradient_with_its_proximal_part():
    y, _, _ = trained(learning_rate=1.0, local_steps=1, max_grad_norm=0.25)
    assert y.tolist() == pytest.approx([3.75, 1.0], abs=1e-5)


def test_momentum_adam_and_weight_decay_reach_the_optimizer():
    plain, _, _ = trained(learning_rate=0.1, local_steps=3)
    momentum, _, _ = trained(learning_rate=0.1, local_steps=3, momentum=0.9)
    decayed, _, _ = trained(learning_rate=0.1, local_steps=3, weight_decay=0.5)
    adam, _, _ = trained(learning_rate=0.1, local_steps=1, optimizer="adam")
    assert momentum[0] < plain[0]
    assert decayed[1] < plain[1]
    assert adam[0].item() == pytest.approx(3.9)  # Adam's first step has length M_k


def test_training_puts_the_model_into_train_mode():
    task = QuadraticTask()
    model = task.build_model().eval()
    train(task, model, task.batches(0, 1), LocalTraining(local_steps=1), CPU)
    assert model.training


def test_batches_that_end_are_an_error_and_not_a_shorter_training():
    task = QuadraticTask()
    three = islice(task.batches(0, 1), 3)
    with pytest.raises(ConfigurationError, match=r"QuadraticTask\.batches ended after 3 of 8"):
        train(task, task.build_model(), three, LocalTraining(local_steps=8), CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "lion"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("local_steps", 0),
        ("batch_size", 0),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("proximal_mu", -0.1),
        ("max_grad_norm", 0.0),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        LocalTraining(**{name: value})


def test_momentum_of_adam_is_refused():
    with pytest.raises(ConfigurationError, match=r"momentum=0\.5 belongs to sgd"):
        LocalTraining(optimizer="adam", momentum=0.5)


# --- mixed precision ------------------------------------------------------------------------------


class Remembering(QuadraticTask):
    """Computes its loss with a product, which autocast does in the lower precision."""

    def loss(self, model, batch):
        out = model.y.expand(2, 2) @ torch.full((2, 1), 1 / 3)
        self.computed_in = out.dtype
        return 0.5 * (out - 1.0).square().sum()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_the_loss_is_computed_in_the_precision_and_the_model_stays_in_float32(precision, dtype):
    task = Remembering(start=(4.0, 1.0))
    y, _, _ = trained(task, learning_rate=0.1, local_steps=2, precision=precision)
    assert task.computed_in is dtype
    assert y.dtype is torch.float32


def test_steps_too_small_for_bfloat16_still_add_up():
    # 256 + 0.5 is 256 in bfloat16; the master weights are not.
    task = QuadraticTask(start=(256.0, 256.0))
    y, _, _ = trained(task, learning_rate=1e-3, local_steps=4, precision="bfloat16")
    assert y.tolist() == pytest.approx([1 + 255 * 0.999**4] * 2, rel=1e-5)


def test_mixed_precision_comes_close_to_full_precision():
    full, _, _ = trained(Remembering(start=(4.0, 1.0)), learning_rate=0.3, local_steps=20)
    mixed, _, _ = trained(
        Remembering(start=(4.0, 1.0)), learning_rate=0.3, local_steps=20, precision="bfloat16"
    )
    assert mixed.tolist() == pytest.approx(full.tolist(), abs=0.05)
    assert mixed.tolist() != full.tolist()


def test_float16_on_a_cpu_is_refused_with_what_would_work():
    with pytest.raises(ConfigurationError, match=r"float16 needs CUDA.*bfloat16"):
        trained(precision="float16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_learns_on_a_gpu(precision):
    task = Remembering(start=(4.0, 1.0))
    task.loss = lambda model, batch: 0.5 * (model.y @ model.y.new_full((2, 1), 1 / 3) - 1.0) ** 2
    device = torch.device("cuda")
    model = task.build_model().to(device)
    training = LocalTraining(learning_rate=0.3, local_steps=40, precision=precision)
    train(task, model, task.batches(0, 1), training, device)
    assert model.y.dtype is torch.float32
    assert float(model.y.sum()) / 3 == pytest.approx(1.0, abs=0.05)


def test_an_unknown_precision_is_refused_with_the_choices():
    with pytest.raises(ConfigurationError, match="float32, bfloat16, float16"):
        LocalTraining(precision="int8")
