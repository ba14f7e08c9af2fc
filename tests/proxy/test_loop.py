"""How the loop treats what users override, and how its runs end."""

from itertools import pairwise

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import AsyncStrategy, FedAsync, FedBuff
from fedagent.rules import ASGD, Ringmaster, Rule
from fedagent.scheduling import RoundRobin
from fedagent.simulation import Equal, Links, Reliability, Scripted
from fedagent.stopping import MaxUpdates
from fedagent.update import Outcome
from tests.toy import Log, client_app, run


class Counting(Rule):
    """Gives every job a model of its own that nobody else gets, and keeps the deltas."""

    def __init__(self):
        self.given, self.deltas = 0, []

    def model_for(self, node_id):
        self.given += 1
        return torch.full((5,), float(self.given))

    def receive(self, model, update):
        self.deltas.append(update.delta.clone())
        return True


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_dropped_message_does_not_shift_the_base_versions_of_the_others(dropped):
    class Dropping(AsyncStrategy):
        def configure_train(self, server_round, arrays, config, grid):
            messages = list(super().configure_train(server_round, arrays, config, grid))
            return [m for n, m in enumerate(messages) if n != dropped]

    app = ClientApp()

    @app.train()
    def _train(message, context):
        arrays = {k: v + 1 for k, v in message.content["arrays"].to_torch_state_dict().items()}
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=message)

    rule = Counting()
    strategy = Dropping(rule, prefetch=2, fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=2), rounds=6, client=app)
    assert len(rule.deltas) == 12
    assert all(torch.equal(delta, torch.ones(5)) for delta in rule.deltas)


class Hearing(RoundRobin):
    """Counts what it hears of every node's jobs."""

    def __init__(self):
        super().__init__()
        self.observed = self.num_lost = 0

    def observe(self, observation):
        self.observed += 1

    def lost(self, node_id):
        self.num_lost += 1


def refuse_some(partition, reply):
    """A third of the nodes report no examples, which the gate refuses."""
    if partition % 3 == 0:
        reply["metrics"]["num-examples"] = 0
    return reply


@pytest.mark.parametrize(
    ("rule", "client", "reliability"),
    [
        (ASGD(), None, Reliability()),
        (Ringmaster(max_staleness=1), None, Reliability()),  # refuses what is late
        (ASGD(), refuse_some, Reliability()),
        (ASGD(), None, Reliability(failure_rate=0.3)),
    ],
)
def test_a_scheduler_hears_of_every_job_exactly_once(rule, client, reliability):
    scheduler, log = Hearing(), Log()
    strategy = AsyncStrategy(
        rule, scheduler=scheduler, callbacks=[log], fraction_evaluate=0.0, concurrency=6
    )
    fleet = Scripted(num_nodes=6, times=(1.0, 1.1, 1.7, 2.0, 3.0, 5.0), reliability=reliability)
    run(strategy, fleet, rounds=7, client=client_app(client))
    assert scheduler.observed + scheduler.num_lost == len(log.settlements)
    blamed = [
        s for s in log.settlements if s.outcome is not Outcome.APPLIED and s.reason != "too-stale"
    ]
    assert scheduler.num_lost == len(blamed)


def test_a_node_whose_replies_an_override_filters_out_is_not_punished():
    class Picky(FedAsync):
        def aggregate_train(self, server_round, replies):
            kept = [r for r in replies if r.content["metrics"]["num-examples"] != 13]
            return super().aggregate_train(server_round, kept)

    def unlucky(partition, reply):
        if partition == 1:
            reply["metrics"]["num-examples"] = 13
        return reply

    log = Log()
    strategy = Picky(callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=2), rounds=5, client=client_app(unlucky))
    dropped = [s for s in log.settlements if s.reason == "dropped-by-strategy"]
    sent = [s.dispatch.sent_at_s for s in dropped]
    gaps = [b - a for a, b in pairwise(sent)]
    assert len(dropped) >= 8
    assert all(gap == pytest.approx(gaps[0]) for gap in gaps), "as often as its neighbour"


def test_nodes_that_share_a_model_share_its_version():
    class Shared(ASGD):
        def __init__(self):
            super().__init__()
            self.mine = None

        def model_for(self, node_id):
            if self.mine is None:
                self.mine = torch.zeros(5)
            return self.mine

    payloads = []

    class Watching(AsyncStrategy):
        def configure_train(self, server_round, arrays, config, grid):
            messages = list(super().configure_train(server_round, arrays, config, grid))
            payloads.extend(next(iter(m.content["arrays"].values())).data for m in messages)
            return messages

    strategy = Watching(Shared(), fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=8), rounds=1)
    assert len(payloads) >= 8
    assert len({id(data) for data in payloads[:8]}) == 1


def test_a_model_that_was_changed_in_place_is_another_version():
    class Moving(ASGD):
        def __init__(self):
            super().__init__()
            self.mine = torch.zeros(5)

        def model_for(self, node_id):
            return self.mine.add_(1.0)

    seen = set()

    class Watching(AsyncStrategy):
        def configure_train(self, server_round, arrays, config, grid):
            messages = list(super().configure_train(server_round, arrays, config, grid))
            first = (next(iter(m.content["arrays"].values())) for m in messages)
            seen.update(float(array.numpy().flat[0]) for array in first)
            return messages

    run(Watching(Moving(), fraction_evaluate=0.0), Equal(num_nodes=4), rounds=1)
    assert {1.0, 2.0, 3.0, 4.0} <= seen


# --- ends ---------------------------------------------------------------------------------------


def test_a_result_says_why_its_run_ended():
    outcome = run(FedAsync(fraction_evaluate=0.0), Equal(num_nodes=3), rounds=4)
    assert (outcome.result.end.kind, outcome.result.end.detail) == ("completed", "4 rounds")
    assert outcome.result.end.is_complete


def test_a_stall_is_no_completion():
    log = Log()
    strategy = FedBuff(callbacks=[log], min_available_nodes=5)
    outcome = run(strategy, Equal(num_nodes=3), timeout=30.0)
    assert outcome.result.end == log.end
    assert log.end.kind == "stalled"
    assert not log.end.is_complete
    assert str(log.end).startswith("stalled: only 3 of min_available_nodes=5")


def test_an_error_is_a_failure_and_an_interruption_a_stop():
    for error, kind in ((ZeroDivisionError("oh"), "failed"), (KeyboardInterrupt(), "stopped")):
        log = Log()

        def broken(version, arrays, error=error):
            raise error

        with pytest.raises(type(error)):
            run(FedAsync(callbacks=[log]), Equal(num_nodes=2), evaluate_fn=broken)
        assert log.end.kind == kind
        assert type(error).__name__ in log.end.detail


@pytest.mark.parametrize("every", [1, 3])
def test_should_stop_ends_a_run_after_the_round_that_it_names(every):
    asked = []

    def should_stop(server_round, result):
        asked.append((server_round, sorted(result.train_metrics_clientapp), len(result.arrays)))
        return server_round == 6

    strategy = FedBuff(buffer_size=every, fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=3), rounds=50, should_stop=should_stop)
    assert [server_round for server_round, *_ in asked] == [1, 2, 3, 4, 5, 6]
    assert all(len(arrays := seen) == server_round for server_round, seen, _ in asked), arrays
    assert all(size > 0 for *_, size in asked)
    assert outcome.result.end.is_complete
    assert "should_stop" in outcome.result.end.detail
    assert max(outcome.result.train_metrics_clientapp) == 6


def test_a_condition_that_names_when_it_is_due_ends_the_run_exactly_then():
    class At:
        due_s = 7.25

        def __call__(self, statistics):
            return "at 7.25" if statistics.now_s >= self.due_s else None

    log = Log()
    strategy = FedAsync(callbacks=[log], stopping=[At()], fraction_evaluate=0.0)
    run(strategy, Scripted(num_nodes=3, times=(3.0, 3.0, 500.0)), rounds=1000)
    assert log.statistics.now_s == 7.25
    assert log.reason == "at 7.25"


def test_max_updates_are_counted_whoever_is_late():
    log = Log()
    strategy = FedAsync(callbacks=[log], stopping=[MaxUpdates(9)], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=4, links=Links(latency_s=0.5)), rounds=1000)
    assert log.statistics.num_updates == 9
