"""Mutation tests of the SGD family: what is easy to get wrong, and must turn the check red."""

from dataclasses import replace

import pytest
import torch

from fedagent.rules import (
    ASGD,
    DCASGD,
    DelayedNesterov,
    FedNova,
    HeLoCo,
    Malenia,
    Rennala,
    Rescaled,
    Ringleader,
    Ringmaster,
    RingmasterLMO,
    too_stale,
)
from fedagent.rules.buffer import Buffer
from tests.conformance import cases_sgd as cases
from tests.conformance.planting import Mistakes

DELAY_ADAPTIVE = cases.asgd("delay_adaptive")
RINGMASTER = cases.ringmaster(3)
RENNALA = cases.rennala(3)
MALENIA = cases.malenia(4, 6)
RINGLEADER = cases.ringleader(3)
DELAYED_NESTEROV = cases.delayed_nesterov(3, 0.9)
HELOCO = cases.heloco(0.2)
RINGMASTER_LMO = cases.ringmaster_lmo(3, 0.3, shrink_after=4.0)
RESCALED = cases.rescaled_asgd(float("inf"))
DC_ASGD = cases.dc_asgd(adaptive=False)
ADAPTIVE_DC_ASGD = cases.dc_asgd(adaptive=True)
FEDNOVA = cases.fednova("polynomial", weighted=True)

MISTAKES = Mistakes()
mistake = MISTAKES.register


# --- ASGD, Ringmaster -------------------------------------------------------------------------


@mistake("asgd", DELAY_ADAPTIVE, shows_in="weight")
def divides_by_the_delay_even_below_the_concurrency(patch):
    patch.setattr(
        "fedagent.rules.staleness.delay_adaptive", lambda tau, concurrency: concurrency / (tau + 1)
    )


@mistake("asgd", DELAY_ADAPTIVE, shows_in="parameters")
def subtracts_delta_as_if_it_were_a_gradient(patch):
    right = ASGD.receive
    patch.setattr(
        ASGD,
        "receive",
        lambda self, model, update: right(self, model, replace(update, delta=-update.delta)),
    )


@mistake("ringmaster", RINGMASTER, shows_in="accepted")
def accepts_an_update_exactly_at_the_bound(patch):
    patch.setattr(
        Ringmaster,
        "rejection",
        lambda self, update: too_stale(update) if update.staleness > self.max_staleness else None,
    )


@mistake("ringmaster", RINGMASTER, shows_in="accepted")
def applies_what_it_should_ignore(patch):
    patch.setattr(Ringmaster, "rejection", lambda self, update: None)


# --- Rennala, Malenia -------------------------------------------------------------------------


@mistake("rennala", RENNALA, shows_in="accepted")
def fills_the_batch_with_stale_updates(patch):
    patch.setattr(Rennala, "rejection", lambda self, update: None)


@mistake("rennala", RENNALA, shows_in="parameters")
def applies_the_sum_of_the_batch_instead_of_its_mean(patch):
    right = Rennala.__init__

    def init(self, buffer_size, server_learning_rate):
        right(self, buffer_size, buffer_size * server_learning_rate)

    patch.setattr(Rennala, "__init__", init)


@mistake("rennala", RENNALA, shows_in="parameters")
def keeps_the_sum_of_the_last_batch(patch):
    right = Buffer.add

    def add(self, delta, weight=1.0):
        kept = 0.0 if self._sum is None or len(self) else self._sum
        right(self, delta + kept, weight)

    patch.setattr(Buffer, "add", add)


@mistake("malenia", MALENIA, shows_in="parameters")
def pools_the_updates_of_all_nodes(patch):
    def receive(self, model, update):
        self._batches.setdefault(update.node_id, Buffer()).add(update.delta)
        model.carry(update.carried, update.staleness)
        if not self._is_complete():
            return False
        pooled = Buffer()
        for batch in self._batches.values():
            count = len(batch)
            pooled.add(batch.take(), weight=count)
        model.vector.add_(pooled.take(), alpha=self.server_learning_rate)
        self._batches.clear()
        return True

    patch.setattr(Malenia, "receive", receive)


@mistake("malenia", MALENIA, shows_in="published")
def counts_updates_instead_of_taking_the_harmonic_mean(patch):
    patch.setattr(
        Malenia,
        "_is_complete",
        lambda self: len(self._batches) >= self.num_nodes and self.pending >= self.batch_size,
    )


@mistake("malenia", cases.malenia(3, 1), shows_in="published")
def does_not_wait_for_every_node(patch):
    right = Malenia.__init__

    def init(self, num_nodes, *args):
        right(self, 1, *args)

    patch.setattr(Malenia, "__init__", init)


# --- Ringleader -------------------------------------------------------------------------------


@mistake("ringleader", RINGLEADER, shows_in="published")
def steps_on_every_arrival_once_the_table_is_full(patch):
    right = Ringleader.receive

    def receive(self, model, update):
        published = right(self, model, update)
        if not published and self._waiting:
            model.vector.add_(self._table, alpha=self.server_learning_rate / self._size)
            return True
        return published

    patch.setattr(Ringleader, "receive", receive)


@mistake("ringleader", RINGLEADER, shows_in="parameters")
def keeps_only_the_latest_update_of_a_node(patch):
    def add(self, node, delta):
        old = self._rows.get(node, torch.zeros_like(delta))
        self._rows[node] = delta.clone()
        self._counts[node] = self._counts.get(node, 0) + 1
        return delta - old

    patch.setattr(Ringleader, "_add", add)


@mistake("ringleader", RINGLEADER, shows_in="parameters")
def puts_an_early_update_into_the_round_under_way(patch):
    right = Ringleader._add

    def add(self, node, delta):
        if self._waiting and node not in self._waiting:
            self._table.add_(delta, alpha=0.5)
        return right(self, node, delta)

    patch.setattr(Ringleader, "_add", add)


@mistake("ringleader", RINGLEADER, shows_in="pending")
def forgets_the_early_updates_at_the_end_of_a_round(patch):
    right = Ringleader.receive

    def receive(self, model, update):
        published = right(self, model, update)
        if published and not self._waiting:
            self._rows.clear()
            self._counts.clear()
        return published

    patch.setattr(Ringleader, "receive", receive)


# --- Delayed Nesterov -------------------------------------------------------------------------


@mistake("delayed-nesterov", DELAYED_NESTEROV, shows_in="parameters")
def applies_the_full_delta_on_every_arrival(patch):
    right = DelayedNesterov.receive

    def receive(self, model, update):
        extra = update.delta.clone()
        published = right(self, model, update)
        model.vector.add_(extra, alpha=self.server_learning_rate * (1 - 1 / self.period))
        return published

    patch.setattr(DelayedNesterov, "receive", receive)


@mistake("delayed-nesterov", DELAYED_NESTEROV, shows_in="parameters")
def applies_the_momentum_without_beta(patch):
    right = DelayedNesterov.receive

    def receive(self, model, update):
        published = right(self, model, update)
        if len(self._buffer) == 0:
            beta = self.momentum
            model.vector.add_(self._velocity, alpha=self.server_learning_rate * (1 - beta))
        return published

    patch.setattr(DelayedNesterov, "receive", receive)


@mistake("delayed-nesterov", DELAYED_NESTEROV, shows_in="parameters")
def applies_the_momentum_on_every_arrival(patch):
    right = DelayedNesterov.receive

    def receive(self, model, update):
        published = right(self, model, update)
        if len(self._buffer) and self._velocity is not None:
            alpha = self.server_learning_rate * self.momentum
            model.vector.add_(self._velocity, alpha=alpha)
        return published

    patch.setattr(DelayedNesterov, "receive", receive)


# --- HeLoCo -----------------------------------------------------------------------------------


@mistake("heloco", HELOCO, shows_in="parameters")
def publishes_where_the_momentum_has_not_led_yet(patch):
    right = HeLoCo.receive

    def receive(self, model, update):
        published = right(self, model, update)
        model.vector.sub_(self._momentum, alpha=self.server_learning_rate * self.momentum)
        return published

    patch.setattr(HeLoCo, "receive", receive)


@mistake("heloco", HELOCO, shows_in="parameters")
def corrects_the_update_by_a_momentum_that_holds_it(patch):
    right = HeLoCo._correct

    def correct(self, delta, m):
        right(self, delta, self.momentum * m + (1 - self.momentum) * delta)

    patch.setattr(HeLoCo, "_correct", correct)


@mistake("heloco", HELOCO, shows_in="parameters")
def drops_what_points_against_the_momentum(patch):
    right = HeLoCo._correct

    def correct(self, delta, m):
        if delta @ m < 0:
            delta.zero_()
        right(self, delta, m)

    patch.setattr(HeLoCo, "_correct", correct)


# --- Ringmaster LMO ---------------------------------------------------------------------------


@mistake("ringmaster-lmo", RINGMASTER_LMO, shows_in="accepted")
def lets_a_late_update_into_the_momentum(patch):
    patch.setattr(RingmasterLMO, "rejection", lambda self, update: None)


@mistake("ringmaster-lmo", RINGMASTER_LMO, shows_in="parameters")
def steps_along_the_update_instead_of_the_momentum(patch):
    right = RingmasterLMO.receive

    def receive(self, model, update):
        self.momentum = 0.0
        return right(self, model, update)

    patch.setattr(RingmasterLMO, "receive", receive)


@mistake("ringmaster-lmo", RINGMASTER_LMO, shows_in="parameters")
def keeps_the_first_step_s_size(patch):
    patch.setattr(RingmasterLMO, "_step_size", lambda self: self.server_learning_rate)


@mistake("ringmaster-lmo", RINGMASTER_LMO, shows_in="parameters")
def counts_refused_updates_too(patch):
    right = RingmasterLMO.rejection

    def rejection(self, update):
        self._num_received += 1
        return right(self, update)

    patch.setattr(RingmasterLMO, "rejection", rejection)


@mistake("ringmaster-lmo", RINGMASTER_LMO, shows_in="parameters")
def takes_the_steepest_ascent(patch):
    module = "fedagent.rules.ringmaster_lmo.direction"
    patch.setattr(module, lambda m, spec: -m.sign() / len(m) ** 0.5)


# --- Rescaled ---------------------------------------------------------------------------------


@mistake("rescaled", RESCALED, shows_in="parameters")
def lets_who_is_heard_most_count_most(patch):
    right = Rescaled._weight
    patch.setattr(Rescaled, "_weight", lambda self, node_id: 1 / right(self, node_id))


@mistake("rescaled", RESCALED, shows_in="parameters")
def weighs_a_node_by_the_updates_before_this_one(patch):
    right = Rescaled._weight

    def weight(self, node_id):
        before = self._counts.get(node_id, 0)
        return right(self, node_id) * (before + 1) / max(before, 1)

    patch.setattr(Rescaled, "_weight", weight)


@mistake("rescaled", cases.rescaled_asgd(1.3), shows_in="parameters")
def bounds_no_weight(patch):
    right = Rescaled.__init__

    def init(self, inner, max_weight):
        right(self, inner, float("inf"))

    patch.setattr(Rescaled, "__init__", init)


# --- DC-ASGD ----------------------------------------------------------------------------------


@mistake("dc-asgd", DC_ASGD, shows_in="parameters")
def forgets_that_delta_is_minus_the_gradient(patch):
    right = DCASGD.__init__
    patch.setattr(
        DCASGD,
        "__init__",
        lambda self, lambda_, *args: (
            right(self, lambda_, *args),
            setattr(self, "lambda_", -lambda_),
        )[0],
    )


@mistake("dc-asgd", DC_ASGD, shows_in="parameters")
def compensates_with_the_model_after_the_step(patch):
    right = DCASGD.receive

    def receive(self, model, update):
        drift = update.delta * self.server_learning_rate
        return right(self, model, replace(update, base=update.base - drift))

    patch.setattr(DCASGD, "receive", receive)


@mistake("dc-asgd", ADAPTIVE_DC_ASGD, shows_in="parameters")
def divides_by_the_mean_square_without_the_root(patch):
    right = DCASGD._root_mean_square
    patch.setattr(DCASGD, "_root_mean_square", lambda self, *args: right(self, *args).square())


@mistake("dc-asgd", ADAPTIVE_DC_ASGD, shows_in="parameters")
def takes_the_mean_square_before_this_gradient_is_in_it(patch):
    right = DCASGD._root_mean_square

    def stale(self, v, delta):
        before = v.clone()
        right(self, v, delta)
        return before.add(1e-7).sqrt()

    patch.setattr(DCASGD, "_root_mean_square", stale)


# --- FedNova ----------------------------------------------------------------------------------


@mistake("fednova", FEDNOVA, shows_in="parameters")
def forgets_to_scale_back_by_the_effective_number_of_steps(patch):
    right = FedNova.receive

    def receive(self, model, update):
        self._steps = self._examples
        return right(self, model, replace(update, num_examples=update.num_examples))

    patch.setattr(FedNova, "receive", receive)


@mistake("fednova", FEDNOVA, shows_in="parameters")
def adds_the_steps_of_the_whole_buffer(patch):
    right = FedNova.receive

    def receive(self, model, update):
        before = model.vector.clone()
        published = right(self, model, update)
        model.vector.sub_(before).mul_(self.buffer_size).add_(before)
        return published

    patch.setattr(FedNova, "receive", receive)


@mistake("fednova", FEDNOVA, shows_in="parameters")
def ignores_the_local_steps(patch):
    right = FedNova.receive
    patch.setattr(
        FedNova,
        "receive",
        lambda self, model, update: right(self, model, replace(update, local_steps=None)),
    )


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda mistake: mistake.name)
def test_planted_mistake_turns_the_check_red(planted, monkeypatch):
    planted.assert_noticed(monkeypatch)
