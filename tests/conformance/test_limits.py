"""Where the rules must coincide with something simpler."""

import numpy as np
import pytest
import torch
from torch import nn

from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import FedAsync, FedBuff, Rule
from fedagent.rules.staleness import constant, exponential, hinge, polynomial
from fedagent.update import Update
from tests.conformance.cases import CASES, for_every_case
from tests.conformance.replay import RealRun, Work, fleet, replay

INITIAL = (0.5, -1.0, 2.0)
RANDOM = np.random.default_rng(7)
DELTAS = RANDOM.normal(size=(12, 3))
EXAMPLES = [10, 200, 3, 45, 1, 60, 7, 80, 9, 100, 11, 12]


def works(count: int) -> list[Work]:
    """One work of each of `count` nodes."""
    return [Work(i, tuple(DELTAS[i]), EXAMPLES[i], counter=i) for i in range(count)]


def near(parameters, expected) -> bool:
    return bool(np.allclose(parameters, expected, rtol=1e-13, atol=1e-13))


# --- buffer of one ----------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.3])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("normalise", ["buffer", "weights"])
def test_fedbuff_with_a_buffer_of_one_adds_every_delta_however_stale(eta, weighted, normalise):
    run = RealRun(FedBuff(1, eta, constant, normalise, weighted), INITIAL)

    events = replay(run, [(0, work) for work in works(12)])

    expected = np.array(INITIAL) + eta * np.cumsum(DELTAS, axis=0)
    assert [event.tau for event in events] == list(range(12))
    assert near([event.parameters for event in events], expected)


def test_weight_normalised_buffer_of_one_cancels_the_staleness_weight():
    run = RealRun(FedBuff(1, 1.0, polynomial, normalise="weights"), INITIAL)

    events = replay(run, [(0, work) for work in works(6)])

    assert events[-1].weight < 0.5
    assert near(events[-1].parameters, np.array(INITIAL) + DELTAS[:6].sum(axis=0))


def test_fedasync_on_fresh_updates_is_fedbuff_with_a_buffer_of_one():
    def one_node(rule: Rule):
        return fleet(RealRun(rule, INITIAL), [Work(0, tuple(delta)) for delta in DELTAS])

    asynchronous = one_node(FedAsync(alpha=0.3))
    buffered = one_node(FedBuff(1, server_learning_rate=0.3))

    assert all(event.tau == 0 for event in asynchronous)
    assert near([e.parameters for e in asynchronous], [e.parameters for e in buffered])


# --- the synchronous limit --------------------------------------------------------------------


@pytest.mark.parametrize("normalise", ["buffer", "weights"])
@pytest.mark.parametrize(
    ("weighted", "weights"),
    [(True, EXAMPLES[:5]), (False, [1, 1, 1, 1, 1])],
    ids=["examples", "equal"],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_buffer_of_the_whole_cohort_is_the_mean_of_the_client_models(
    normalise, weighted, weights, order
):
    run = RealRun(FedBuff(5, 1.0, polynomial, normalise, weighted), INITIAL)
    rounds = [(version, works(5)[i]) for version in range(3) for i in order]

    versions = [event for event in replay(run, rounds) if event.published]

    x = np.array(INITIAL)
    for event in versions:
        x = np.average(x + DELTAS[:5], axis=0, weights=weights)
        assert near(event.parameters, x)
    assert len(versions) == 3


def test_normalisation_buffers_are_averaged_like_parameters_and_counters_survive():
    torch.manual_seed(3)
    server = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    initial = arrays_of(server)
    model = FlatModel(ModelSpec.of(initial), initial)
    clients = [train_a_little(initial, batches) for batches in (1, 4, 2)]
    rule = FedBuff(buffer_size=3, weighted=True)

    for client, examples in zip(clients, (10, 30, 20), strict=True):
        vector, carried = model.spec.flatten(client)
        rule.receive(
            model, Update(0, vector - model.vector, model.vector.clone(), 0, examples, carried)
        )

    result = model.arrays()
    assert result["1.num_batches_tracked"] == 4
    assert result["1.num_batches_tracked"].dtype == np.int64
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var"):
        mean = np.average([client[name] for client in clients], axis=0, weights=(10, 30, 20))
        np.testing.assert_allclose(result[name], mean, rtol=1e-5, atol=1e-6, err_msg=name)


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def train_a_little(initial: dict[str, np.ndarray], batches: int) -> dict[str, np.ndarray]:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    module.load_state_dict({name: torch.from_numpy(a) for name, a in initial.items()})
    for _ in range(batches):
        loss = module(torch.randn(8, 3) * batches).square().mean()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.sub_(0.1 * gradient)
    return arrays_of(module)


# --- FedAsync's extremes ----------------------------------------------------------------------


def test_fedasync_with_alpha_one_takes_over_a_fresh_client_model():
    run = RealRun(FedAsync(alpha=1.0), INITIAL)

    event = fleet(run, works(1))[0]

    assert event.tau == 0
    assert near(event.parameters, np.array(INITIAL) + DELTAS[0])


def test_fedasync_with_alpha_one_and_no_staleness_weight_takes_over_a_late_client_model_too():
    run = RealRun(FedAsync(alpha=1.0, staleness=constant), INITIAL)

    events = replay(run, [(0, work) for work in works(4)])

    assert events[-1].tau == 3
    assert near(events[-1].parameters, np.array(INITIAL) + DELTAS[3])


# --- how often --------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_size", [1, 2, 3, 5])
def test_more_replies_than_the_buffer_holds_publish_at_exactly_every_kth(buffer_size):
    run = RealRun(FedBuff(buffer_size, 1.0, constant, weighted=False), INITIAL)

    events = replay(run, [(0, work) for work in works(11)])

    publishing = [i + 1 for i, event in enumerate(events) if event.published]
    assert publishing == list(range(buffer_size, 12, buffer_size))
    assert [event.tau for event in events] == [i // buffer_size for i in range(11)]
    assert [event.pending for event in events] == [(i + 1) % buffer_size for i in range(11)]
    full = 11 // buffer_size * buffer_size
    mean_steps = DELTAS[:full].sum(axis=0) / buffer_size
    assert near(events[-1].parameters, np.array(INITIAL) + mean_steps), "the tail waits"


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.buffer_size], ids=lambda case: case.name
)
def test_rule_publishes_at_exactly_every_kth_update_of_one_poll(case):
    events = replay(RealRun(case.rule(), INITIAL), [(0, work) for work in works(11)])

    assert [e.published for e in events] == [(i + 1) % case.buffer_size == 0 for i in range(11)]


# --- weights at the edge ----------------------------------------------------------------------


@pytest.mark.parametrize("normalise", ["buffer", "weights"])
@pytest.mark.parametrize(
    "weight",
    [
        lambda tau: 0.0,
        lambda tau: 5e-324,
        lambda tau: 1e-39,
        lambda tau: exponential(tau + 1000, beta=0.1),
    ],
    ids=["zero", "smallest", "subnormal", "exponential"],
)
def test_buffer_of_weightless_updates_publishes_the_same_model(normalise, weight):
    rule = FedBuff(2, 1.0, constant, normalise)
    rule.staleness = weight  # a late buffer's weights; the constructor refuses them for fresh ones
    run = RealRun(rule, INITIAL, dtype="float32")

    events = fleet(run, works(2))

    assert events[-1].published
    np.testing.assert_allclose(events[-1].parameters, INITIAL, atol=1e-6)


def test_weightless_update_leaves_the_weighty_ones_of_its_buffer_alone():
    def only_fresh(tau: int) -> float:
        return float(tau == 0)

    run = RealRun(FedBuff(2, 1.0, only_fresh, "weights", weighted=False), INITIAL)
    first, second, late, fresh = works(4)

    events = replay(run, [(0, first), (0, second), (0, late), (1, fresh)])

    step = events[-1].parameters - events[1].parameters
    assert near(step, DELTAS[3])


@pytest.mark.parametrize(
    "build",
    [lambda: FedAsync(0.6, hinge), lambda: FedBuff(1, 1.0, hinge)],
    ids=["fedasync", "fedbuff"],
)
def test_slow_client_moves_the_model_less(build):
    def step_of_an_update_that_is_late_by(tau: int) -> float:
        arrays = {"w": np.zeros(1, np.float32)}
        model = FlatModel(ModelSpec.of(arrays), arrays)
        build().receive(model, Update(0, torch.ones(1), base=torch.zeros(1), staleness=tau))
        return float(model.vector)

    steps = [step_of_an_update_that_is_late_by(tau) for tau in (0, 4, 5, 6)]

    assert steps[0] == steps[1] > steps[2] > steps[3] > 0


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: FedAsync(alpha=0.0), "alpha=0.0"),
        (lambda: FedAsync(alpha=1.1), "alpha=1.1"),
        (lambda: FedBuff(buffer_size=0), "buffer_size=0"),
        (lambda: FedBuff(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: FedBuff(normalise="mean"), "normalise='mean'"),
    ],
)
def test_setting_that_cannot_work_is_named(build, setting):
    with pytest.raises(ValueError, match=setting):
        build()


@for_every_case
def test_state_of_another_rule_is_refused(case):
    with pytest.raises((ValueError, KeyError)):
        case.rule().load_state_dict({"another-rule": 1.0})
