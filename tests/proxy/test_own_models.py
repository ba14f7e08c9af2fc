"""Rules that keep one model per node: everybody gets its own, and is measured against it."""

import torch

from fedagent import AsyncStrategy
from fedagent.rules import Rule
from fedagent.simulation import Equal
from tests.toy import TRUE_WEIGHTS, Log, run

NODES = 3


class Separate(Rule):
    """Every node trains alone; the published model is the mean."""

    def __init__(self):
        self.models = {}
        self.bases = []

    def model_for(self, node_id):
        return self.models.get(node_id)

    def receive(self, model, update):
        mine = self.models.setdefault(update.node_id, model.vector.clone().zero_())
        self.bases.append(torch.equal(update.base.clone(), mine))
        mine.add_(update.delta)
        model.vector.copy_(torch.stack(list(self.models.values())).mean(0))
        return True


def test_every_node_trains_on_from_its_own_model():
    rule, log = Separate(), Log()
    strategy = AsyncStrategy(rule, fraction_evaluate=0.0, callbacks=[log])
    result = run(strategy, Equal(num_nodes=NODES), rounds=4).result
    assert all(rule.bases)
    assert log.statistics.by_outcome()["applied"] == 4 * NODES
    alone = [m.clone() for m in rule.models.values()]
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    mean = torch.cat([torch.from_numpy(a.numpy()).flatten() for a in result.arrays.values()])
    assert torch.allclose(mean, torch.stack(alone).mean(0))


def test_a_node_is_asked_to_evaluate_its_own_model():
    rule = Separate()
    strategy = AsyncStrategy(rule, evaluate_clients_every=1000)
    result = run(strategy, Equal(num_nodes=NODES), rounds=20).result
    (error,) = [m["error"] for m in result.evaluate_metrics_clientapp.values()]
    own = torch.stack([(m[:4] - TRUE_WEIGHTS).norm() for m in rule.models.values()]).mean()
    of_the_mean = (torch.stack(list(rule.models.values())).mean(0)[:4] - TRUE_WEIGHTS).norm()
    assert abs(error - float(own)) < 1e-5
    assert abs(float(own) - float(of_the_mean)) > 1e-3
