"""Mutation tests: plant the mistakes of public code, and the conformance check must go red.

Here are those that concern the formulas; 9 (leaking slots), 10 (waiting in evaluation) and 11
(resuming without what is in flight) are in test_proxy_mistakes.py.
A mistake that is not noticed here would not be noticed in a rule either.
"""

import weakref
from dataclasses import replace

import pytest
import torch

from fedagent.arrays import ArraySpec
from fedagent.model import FlatModel
from fedagent.proxy.ledger import Ledger
from fedagent.rules import FedAsync, FedBuff, staleness
from tests.conformance import cases
from tests.conformance.planting import Mistakes
from tests.conformance.script import ARRIVALS

NUM_CLIENTS = len({work.node for _, work in ARRIVALS})

FEDASYNC = cases.fedasync("polynomial")
HINGE = cases.fedasync("hinge-a.5-b1")
FEDBUFF = cases.fedbuff("polynomial", "buffer", weighted=False)
WEIGHTED = cases.fedbuff("polynomial", "buffer", weighted=True)
NORMALISED = cases.fedbuff("polynomial", "weights", weighted=True)

MISTAKES = Mistakes()
mistake = MISTAKES.register


@mistake("1", FEDASYNC, shows_in="parameters")
def multiplies_the_stored_rate_by_the_staleness_weight(patch):
    right = FedAsync.receive

    def receive(self, model, update):
        published = right(self, model, update)
        self.alpha *= staleness.polynomial(update.staleness)
        return published

    patch.setattr(FedAsync, "receive", receive)


@mistake("2", HINGE, shows_in="weight")
def forgets_the_hinge_s_plus_one(patch):
    patch.setattr(staleness, "hinge", lambda tau, a, b: 1.0 if tau <= b else 1 / (a * (tau - b)))


@mistake("2", HINGE, shows_in="weight")
def puts_the_hinge_s_plus_one_inside_the_product(patch):
    patch.setattr(
        staleness, "hinge", lambda tau, a, b: 1.0 if tau <= b else 1 / (a * (tau - b + 1))
    )


@mistake("2", HINGE, shows_in="weight")
def puts_the_hinge_s_plus_one_outside_the_fraction(patch):
    patch.setattr(
        staleness, "hinge", lambda tau, a, b: 1.0 if tau <= b else 1 / (a * (tau - b)) + 1
    )


@mistake("3", FEDASYNC, shows_in="tau")
def counts_the_version_up_before_it_settles(patch):
    right = Ledger.staleness
    patch.setattr(Ledger, "staleness", lambda self, *args: right(self, *args) + 1)


@mistake("3", FEDBUFF, shows_in="weight")
def counts_the_version_up_before_it_weighs(patch):
    right = FedBuff.receive
    patch.setattr(
        FedBuff,
        "receive",
        lambda self, model, update: right(
            self, model, replace(update, staleness=update.staleness + 1)
        ),
    )


@mistake("4", FEDBUFF, shows_in="parameters")
def adds_the_client_model_instead_of_the_delta(patch):
    right = FedBuff.receive
    patch.setattr(
        FedBuff,
        "receive",
        lambda self, model, update: right(
            self, model, replace(update, delta=update.base + update.delta)
        ),
    )


@mistake("4", FEDBUFF, shows_in="parameters")
def subtracts_the_current_model_instead_of_the_base(patch):
    right = FedBuff.receive
    patch.setattr(
        FedBuff,
        "receive",
        lambda self, model, update: right(
            self, model, replace(update, delta=update.base + update.delta - model.vector)
        ),
    )


@mistake("4", FEDASYNC, shows_in="parameters")
def mixes_in_the_delta_on_top_of_the_current_model(patch):
    right = FedAsync.receive
    patch.setattr(
        FedAsync,
        "receive",
        lambda self, model, update: right(self, model, replace(update, base=model.vector.clone())),
    )


@mistake("5", FEDBUFF, shows_in="parameters")
def replaces_the_model_by_the_mean_of_the_client_models(patch):
    right, buffers = FedBuff.receive, weakref.WeakKeyDictionary()

    def receive(self, model, update):
        clients = buffers.setdefault(self, [])
        clients.append(update.base + update.delta)
        published = right(self, model, update)
        if published:
            model.vector.copy_(torch.stack(clients).mean(dim=0))
            clients.clear()
        return published

    patch.setattr(FedBuff, "receive", receive)


@mistake("6", FEDBUFF, shows_in="parameters")
def divides_by_the_number_of_clients_instead_of_the_buffer_size(patch):
    right = FedBuff.receive

    def receive(self, model, update):
        before = model.vector.clone()
        published = right(self, model, update)
        model.vector.sub_(before).mul_(self.buffer_size / NUM_CLIENTS).add_(before)
        return published

    patch.setattr(FedBuff, "receive", receive)


@mistake("7", FEDASYNC, shows_in="weight")
def normalises_the_weight_by_that_of_an_update_one_version_late(patch):
    right = staleness.polynomial
    patch.setattr(staleness, "polynomial", lambda tau, a=0.5: right(tau, a) / right(1, a))


@mistake("8", FEDBUFF, shows_in="weight")
def gives_the_polynomial_the_wrong_sign(patch):
    right = staleness.polynomial
    patch.setattr(staleness, "polynomial", lambda tau, a=0.5: right(tau, -a))


@mistake("12", FEDASYNC, shows_in="counter")
def averages_the_batch_norm_counter_like_a_parameter(patch):
    patch.setattr(ArraySpec, "is_averaged", property(lambda self: True))


@mistake("12", FEDBUFF, shows_in="counter")
def scales_the_batch_norm_counter_by_the_mean(patch):
    def carry(self, carried, staleness=0):
        self.carried = {name: (self.carried[name] + value) // 2 for name, value in carried.items()}

    patch.setattr(FlatModel, "carry", carry)


@mistake("12", FEDASYNC, shows_in="counter")
def lets_a_late_client_turn_the_counter_back(patch):
    patch.setattr(
        FlatModel, "carry", lambda self, carried, staleness=0: self.carried.update(carried)
    )


@mistake("12", FEDBUFF, shows_in="counter")
def drops_the_batch_norm_counter(patch):
    patch.setattr(FlatModel, "carry", lambda self, carried, staleness=0: None)


# Not among the twelve, but as easily made.


@mistake("normalise", NORMALISED, shows_in="parameters")
def divides_by_the_examples_where_the_weights_were_asked_for(patch):
    right = FedBuff.receive

    def receive(self, model, update):
        self.normalise = "buffer"
        return right(self, model, update)

    patch.setattr(FedBuff, "receive", receive)


@mistake("weighted", WEIGHTED, shows_in="parameters")
def ignores_how_many_examples_a_client_has(patch):
    right = FedBuff.receive
    patch.setattr(
        FedBuff,
        "receive",
        lambda self, model, update: right(self, model, replace(update, num_examples=1.0)),
    )


@mistake("buffer", FEDBUFF, shows_in="published")
def publishes_one_update_too_late(patch):
    right = FedBuff.__init__

    def init(self, buffer_size, *args):
        right(self, buffer_size + 1, *args)

    patch.setattr(FedBuff, "__init__", init)


@mistake("buffer", FEDBUFF, shows_in="parameters")
def keeps_the_sum_of_the_last_buffer(patch):
    right = FedBuff.receive

    def receive(self, model, update):
        if not self.pending and self.buffer._sum is not None:
            update.delta.add_(self.buffer._sum)
        return right(self, model, update)

    patch.setattr(FedBuff, "receive", receive)


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda mistake: mistake.name)
def test_planted_mistake_turns_the_check_red(planted, monkeypatch):
    planted.assert_noticed(monkeypatch)


def test_every_mistake_about_formulas_is_planted():
    assert {"1", "2", "3", "4", "5", "6", "7", "8", "12"} <= {m.number for m in MISTAKES}
