"""Mutation tests of the rules that remember; see `test_mistakes`.

"public" marks what a public re-implementation does.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedagent.rules import ACE, AREA, CA2FL, FADAS, PORT, FedStaleWeight
from fedagent.rules.buffer import Buffer
from fedagent.rules.table import Table
from tests.conformance import cases_memory as cases
from tests.conformance.case import Case
from tests.conformance.planting import Mistakes, Plant

MISTAKES = Mistakes()

SMOOTH = cases.fadas("smooth", 0.7, 0.5, 0.75, 1.0, 1)
AGED = cases.ace(num_nodes=5, max_age=4)
COSINE = cases.port(w_c=1, w_s=0, beta=10)


def mistake(case: Case, shows_in: str = "parameters") -> Callable[[Plant], Plant]:
    return MISTAKES.register(case.family, case, shows_in)


# --- CA2FL ------------------------------------------------------------------------------------


@mistake(cases.ca2fl(5))
def replaces_the_cache_before_the_buffer_is_complete(patch):  # public
    right = CA2FL.receive

    def receive(self, model, update):
        published = right(self, model, update)
        for node_id, delta in self._fresh.items():
            self._cache.put(node_id, delta.clone())
        return published

    patch.setattr(CA2FL, "receive", receive)


@mistake(cases.ca2fl(5))
def leaves_out_the_mean_of_the_cache(patch):
    patch.setattr(Table, "add_sum_to", lambda self, target, alpha: None)


@mistake(cases.ca2fl(5))
def takes_the_mean_over_the_nodes_heard_so_far(patch):
    right = CA2FL.receive

    def receive(self, model, update):
        self.num_nodes = 1
        return right(self, model, update)

    patch.setattr(CA2FL, "receive", receive)


@mistake(cases.ca2fl(5))
def keeps_what_is_left_of_the_last_buffer(patch):
    right = Buffer.add

    def add(self, delta, weight=1.0):
        if self._sum is not None and self._count == 0:
            delta = delta + self._sum
        right(self, delta, weight)

    patch.setattr(Buffer, "add", add)


def forgets_updates_later_than(staleness: int) -> Plant:
    def plant(patch):
        right = CA2FL.add

        def add(self, model, update):
            right(self, model, update)
            if update.staleness > staleness:
                del self._fresh[update.node_id]

        patch.setattr(CA2FL, "add", add)

    plant.__name__ = f"forgets_updates_later_than_{staleness}"
    return plant


for staleness in range(3):
    mistake(cases.ca2fl(5))(forgets_updates_later_than(staleness))


@mistake(cases.ca2fl(5))
def forgets_a_node_s_update_once_it_has_sent_another(patch):
    right = CA2FL.add

    def add(self, model, update):
        right(self, model, update)
        if update.node_id in self._cache._vectors:
            del self._fresh[update.node_id]

    patch.setattr(CA2FL, "add", add)


# --- ACE --------------------------------------------------------------------------------------


@mistake(cases.ace(5, None))
def forgets_everybody_but_the_node_that_arrives(patch):
    right = ACE.receive

    def receive(self, model, update):
        self._latest = Table()
        return right(self, model, update)

    patch.setattr(ACE, "receive", receive)


@mistake(cases.ace(5, None))
def leaves_the_replaced_entry_in_the_sum(patch):
    right = Table.put

    def put(self, node_id, vector):
        self._vectors.pop(node_id, None)
        right(self, node_id, vector)

    patch.setattr(Table, "put", put)


@mistake(AGED)
def divides_what_aced_has_left_by_all_nodes(patch):
    right = Table.add_sum_to
    patch.setattr(
        Table,
        "add_sum_to",
        lambda self, target, alpha: right(self, target, alpha * len(self._vectors) / 5),
    )


@mistake(AGED)
def counts_an_entry_s_age_from_its_arrival(patch):
    right = ACE.receive

    def receive(self, model, update):
        published = right(self, model, update)
        self._base_versions[update.node_id] = model.version
        return published

    patch.setattr(ACE, "receive", receive)


@mistake(AGED)
def drops_an_entry_one_version_too_early(patch):
    right = ACE._drop_old_entries
    patch.setattr(ACE, "_drop_old_entries", lambda self, version: right(self, version + 1))


@mistake(AGED, shows_in="accepted")
def takes_in_an_update_that_is_too_old(patch):
    patch.setattr(ACE, "rejection", lambda self, update: None)


# --- AREA -------------------------------------------------------------------------------------


@mistake(cases.area(5, 3))
def divides_by_the_updates_per_version(patch):
    right = AREA.receive

    def receive(self, model, update):
        before = model.vector.clone()
        published = right(self, model, update)
        model.vector.sub_(before).mul_(5 / 3).add_(before)
        return published

    patch.setattr(AREA, "receive", receive)


@mistake(cases.area(2, 1))
def makes_no_room_for_a_node_that_was_not_announced(patch):
    right = AREA._welcome
    patch.setattr(AREA, "_welcome", lambda self, x, update: right(self, x.clone(), update))


# --- FADAS ------------------------------------------------------------------------------------


@mistake(SMOOTH)
def divides_by_the_latest_second_moment_instead_of_the_largest(patch):  # public
    patch.setattr(torch, "maximum", lambda a, b, out: out.copy_(b))


@mistake(SMOOTH)
def divides_the_learning_rate_by_the_staleness(patch):  # public
    patch.setattr(
        FADAS,
        "_learning_rate",
        lambda self, tau: self.server_learning_rate / (tau if tau > self.max_staleness else 1),
    )


@mistake(SMOOTH)
def caps_by_the_last_update_s_staleness_instead_of_the_largest(patch):
    right = FADAS.receive

    def receive(self, model, update):
        self._tau_max = 0
        return right(self, model, update)

    patch.setattr(FADAS, "receive", receive)


@mistake(SMOOTH)
def corrects_the_bias_of_the_first_moment(patch):
    right = FADAS._amsgrad

    def amsgrad(self, x, delta, eta_t):
        self.steps = self.__dict__.get("steps", 0) + 1
        right(self, x, delta, eta_t / (1 - self.beta1**self.steps))

    patch.setattr(FADAS, "_amsgrad", amsgrad)


@mistake(SMOOTH)
def takes_delta_for_a_gradient(patch):
    right = FADAS._amsgrad
    patch.setattr(FADAS, "_amsgrad", lambda self, x, delta, eta_t: right(self, x, -delta, eta_t))


# --- PORT -------------------------------------------------------------------------------------


@mistake(COSINE)
def compares_with_the_model_instead_of_its_movement(patch):
    right = PORT._cosine
    patch.setattr(
        PORT,
        "_cosine",
        staticmethod(
            lambda model, update: right(model, replace(update, base=torch.zeros(3).double()))
        ),
    )


@mistake(COSINE)
def lets_disagreement_turn_an_update_around(patch):
    right = PORT._cosine
    patch.setattr(PORT, "_cosine", staticmethod(lambda model, update: 2 * right(model, update) - 1))


@mistake(COSINE)
def counts_a_late_update_of_nothing_as_pointing_nowhere(patch):
    right = PORT._cosine
    patch.setattr(
        PORT,
        "_cosine",
        staticmethod(
            lambda model, update: right(model, update) if update.delta.count_nonzero() else 0.0
        ),
    )


@mistake(COSINE)
def counts_a_fresh_update_as_pointing_nowhere(patch):
    right = PORT._cosine
    patch.setattr(
        PORT,
        "_cosine",
        staticmethod(lambda model, update: right(model, update) if update.staleness else 0.0),
    )


@mistake(cases.port(0, 1, 2))
def leaves_out_how_many_examples_a_node_has(patch):
    right = PORT.receive
    patch.setattr(
        PORT,
        "receive",
        lambda self, model, update: right(self, model, replace(update, num_examples=1.0)),
    )


@mistake(cases.port(0, 1, 2))
def divides_by_the_buffer_size_instead_of_the_weights(patch):
    right = Buffer.take

    def take(self):
        self._divisor = float(self._count)
        return right(self)

    patch.setattr(Buffer, "take", take)


# --- FedStaleWeight ---------------------------------------------------------------------------


@mistake(cases.fedstaleweight(average=False))
def weighs_stale_updates_down_as_everybody_else_does(patch):
    right = Buffer.add
    patch.setattr(Buffer, "add", lambda self, delta, weight=1.0: right(self, delta, 1 / weight))


@mistake(cases.fedstaleweight(average=False))
def leaves_the_buffer_size_out_of_the_weight(patch):
    right = FedStaleWeight._staleness_of
    patch.setattr(
        FedStaleWeight,
        "_staleness_of",
        lambda self, update: right(self, update) / self.buffer_size,
    )


@mistake(cases.fedstaleweight(average=True))
def averages_the_staleness_over_all_nodes_together(patch):
    right = FedStaleWeight._staleness_of
    patch.setattr(
        FedStaleWeight,
        "_staleness_of",
        lambda self, update: right(self, replace(update, node_id=0)),
    )


@mistake(cases.fedstaleweight(average=True))
def leaves_the_arriving_update_out_of_the_average(patch):
    right = FedStaleWeight._staleness_of

    def staleness_of(self, update):
        total, count = self._seen.get(update.node_id, (0, 0))
        right(self, update)
        return total / count if count else 0.0

    patch.setattr(FedStaleWeight, "_staleness_of", staleness_of)


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda mistake: mistake.name)
def test_planted_mistake_turns_the_check_red(planted, monkeypatch):
    planted.assert_noticed(monkeypatch)
