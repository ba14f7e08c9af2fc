"""Clients trained as one batch: who is, with whom, and what comes of it."""

import os
import signal
import time

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from torch import nn

from fedagent import FedBuff, run_simulation
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal, Lognormal, Runtime
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from fedagent.simulation.workers.vectorised import VectorisedExecutor
from fedagent.simulation.workers.work import ClientResult, WorkItem
from fedagent.wire.records import digest, from_record
from tests.client.quadratic import QuadraticTask
from tests.client.test_vectorised import Regression
from tests.simulation.apps import app_of, arrays, echo, metrics, request

TASK = Regression()


def train_app(task=TASK, mods=()):
    return build_client_app(lambda _: ClientSpec(task, LocalTraining(local_steps=3), "cpu", mods))


def item(node: int, kind: str = "train", state=None, **config) -> WorkItem:
    torch.manual_seed(1)
    record = ArrayRecord(TASK.build_model().state_dict())
    message = request(node, kind, record=record, **config)
    return WorkItem(
        message, 1, 1001 + node, {"partition-id": node}, {}, state or RecordDict(), seed=node
    )


def answers(executor, items) -> list[ClientResult]:
    futures = [executor.submit(i) for i in items]
    return [executor.result(f) for f in futures]


def weights(answer: ClientResult) -> dict[str, torch.Tensor]:
    assert not isinstance(answer.content, Error), answer.content
    arrays = from_record(answer.content["arrays"])
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class VectorisedTrainer:
    """An app that notes what it is asked, and how."""

    def __init__(self, app, alone_s=0.0, together_s=0.0):
        self.app, self.alone_s, self.together_s = app, alone_s, together_s
        self.sizes, self.num_alone = [], 0

    def __call__(self, message, context):
        self.num_alone += 1
        time.sleep(self.alone_s)
        return self.app(message, context)

    def train_together(self, requests, begin):
        self.sizes.append(len(requests))
        time.sleep(self.together_s)
        return self.app.train_together(requests, begin)


@pytest.fixture
def noted(monkeypatch):
    """Builds a `VectorisedExecutor` over an inline one, for an app that notes what it is asked."""

    def build(app=None, mode="always", size=32, **seconds):
        together = VectorisedTrainer(app or train_app(), **seconds)
        inline = Inline(app or train_app())
        monkeypatch.setattr(inline, "_app", together)
        return VectorisedExecutor(inline, mode, size), together

    return build


# --- the same training ----------------------------------------------------------------------------


def test_clients_end_where_they_end_alone_whatever_their_local_steps_and_data(noted):
    items = [item(n, **{"local-steps": n + 1}) for n in range(5)]
    executor, app = noted()
    grouped = answers(executor, items)
    assert app.sizes == [5]
    assert app.num_alone == 0
    for one, other in zip(grouped, answers(Inline(train_app()), items), strict=True):
        for name, value in weights(other).items():
            torch.testing.assert_close(weights(one)[name], value, rtol=1e-4, atol=1e-6)
        mine, theirs = one.content["metrics"], other.content["metrics"]
        assert dict(mine) == pytest.approx(dict(theirs), rel=1e-5)


def test_a_token_is_returned_and_the_request_stays_as_it_was(noted):
    items = [item(n, **{"fedagent-token": f"t{n}"}) for n in range(3)]
    before = [digest(i.message.content["arrays"]) for i in items]
    grouped = answers(noted()[0], items)
    assert [a.content["config"]["fedagent-token"] for a in grouped] == ["t0", "t1", "t2"]
    assert [digest(i.message.content["arrays"]) for i in items] == before


def test_learning_rates_of_their_own_keep_clients_apart(noted):
    items = [item(n, **{"learning-rate": 0.1 if n % 2 else 0.4}) for n in range(4)]
    for one, other in zip(
        answers(noted()[0], items), answers(Inline(train_app()), items), strict=True
    ):
        for name, value in weights(other).items():
            torch.testing.assert_close(weights(one)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["never", "always"])
def test_a_seed_gives_the_same_bytes_for_any_number_of_workers(mode):
    def trained(workers: int) -> str:
        outcome = {}
        server = ServerApp()

        @server.main()
        def main(grid, context):
            strategy = FedBuff(buffer_size=3, concurrency=8, fraction_evaluate=0.0)
            torch.manual_seed(5)
            initial = ArrayRecord(TASK.build_model().state_dict())
            outcome["sha"] = digest(strategy.start(grid, initial, num_rounds=6).arrays)

        run_simulation(
            server,
            train_app(),
            fleet=Lognormal(num_nodes=12),
            runtime=Runtime(workers, mode, group_size=4),
        )
        return outcome["sha"]

    assert trained(0) == trained(1) == trained(2)


# --- who is in a group ----------------------------------------------------------------------------


def test_what_waits_is_dealt_evenly_in_the_order_of_submission(noted):
    executor, app = noted(size=4)
    futures = [executor.submit(item(n)) for n in range(9)]
    assert not app.sizes, "nothing begins before an answer is needed"
    executor.result(futures[8])
    assert app.sizes == [3], "this process does only what is asked for"
    for future in futures[:8]:
        executor.result(future)
    assert app.sizes == [3, 3, 3]


def test_what_cannot_share_a_batch_is_done_alone(noted):
    class Uneven(Regression):
        def batches(self, partition_id, batch_size):
            for features, labels in super().batches(partition_id, batch_size):
                kept = 4 if partition_id == 2 else 8
                yield features[:kept], labels[:kept]
                if partition_id == 1:
                    raise ValueError("broken sensor")

        def evaluate(self, model, device, partition_id=None):
            return {"accuracy": 0.5, "num-examples": 1.0}

    executor, app = noted(train_app(Uneven()))
    items = [item(0), item(1), item(2), item(3, "evaluate"), item(4)]
    grouped = answers(executor, items)
    assert app.sizes == [5]
    assert app.num_alone == 3
    assert isinstance(grouped[1].content, Error)
    assert "broken sensor" in grouped[1].content.reason
    assert grouped[3].content["metrics"]["accuracy"] == 0.5
    for n in (0, 2, 4):
        assert weights(grouped[n])


def test_mods_see_every_message_alone(noted):
    seen = []

    def spy(message, context, call_next):
        seen.append(context.node_id)
        return call_next(message, context)

    executor, app = noted(train_app(mods=[spy]))
    answers(executor, [item(n) for n in range(3)])
    assert app.num_alone == 3
    assert seen == [1001, 1002, 1003]


def test_a_model_that_cannot_be_batched_is_trained_one_by_one_and_says_why(noted, caplog):
    dropping = Regression(lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 4)))
    executor, app = noted(train_app(dropping))
    items = [
        WorkItem(
            request(n, record=ArrayRecord(dropping.build_model().state_dict())),
            1,
            1001 + n,
            {"partition-id": n},
            {},
            RecordDict(),
            seed=n,
        )
        for n in range(3)
    ]
    with caplog.at_level("WARNING", "flwr.fedagent"):
        assert all(weights(a) for a in answers(executor, items))
    assert app.num_alone == 3
    assert "random" in caplog.text


def test_a_dispatched_model_that_does_not_fit_fails_its_own_node_only(noted):
    torn = request(1, record=ArrayRecord({"0.weight": torch.zeros(5, 6)}))
    items = [
        item(0),
        WorkItem(torn, 1, 1002, {"partition-id": 1}, {}, RecordDict(), seed=1),
        item(2),
    ]
    grouped = answers(noted()[0], items)
    assert [isinstance(a.content, Error) for a in grouped] == [False, True, False]


def test_more_data_than_fits_is_trained_in_turns(noted, monkeypatch):
    # Of 3 * 8 * (6 * 4 + 8).
    monkeypatch.setattr("fedagent.client.shared_batches._MAX_BATCHES_BYTES", 1300)
    executor, app = noted()
    assert all(weights(a) for a in answers(executor, [item(n) for n in range(4)]))
    assert app.num_alone == 4  # one alone is no group


# --- whether it is worth it -----------------------------------------------------------------------


@pytest.mark.parametrize(("alone_s", "together_s", "wins"), [(0.0, 0.3, False), (0.1, 0.0, True)])
def test_auto_keeps_the_faster_way(noted, alone_s, together_s, wins):
    executor, app = noted(mode="auto", alone_s=alone_s, together_s=together_s)
    for _ in range(4):
        answers(executor, [item(n) for n in range(4)])
    assert (app.sizes, app.num_alone) == ([4, 4], 8), "both ways twice, nothing done twice"
    answers(executor, [item(n) for n in range(4)])
    assert (app.sizes, app.num_alone) == (([4, 4, 4], 8) if wins else ([4, 4], 12))


class Counting(ClientApp):
    """Counts its node's jobs in the Context, alone or in a batch; may fail in the middle of one."""

    def __init__(self, fails_together=False):
        super().__init__()
        self.fails_together = fails_together
        self.train()(self.count)

    def count(self, message, context):
        jobs = context.state.get("jobs", MetricRecord({"done": 0}))["done"] + 1
        context.state["jobs"] = MetricRecord({"done": jobs})
        content = {"arrays": message.content["arrays"]}
        content["metrics"] = MetricRecord({"num-examples": 1, "jobs": jobs})
        return Message(RecordDict(content), reply_to=message)

    def train_together(self, requests, begin):
        replies = {}
        for index, (message, context) in enumerate(requests):
            begin(index)
            replies[index] = self.count(message, context)
            if self.fails_together and index:
                raise RuntimeError("a shape that does not fit")
        return replies


@pytest.mark.parametrize("fails_together", [False, True])
@pytest.mark.parametrize("mode", ["auto", "always", "never"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_client_counts_each_of_its_jobs_once_however_it_is_trained(mode, workers, fails_together):
    counted = []

    class Watched(FedBuff):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            counted.extend((r.metadata.src_node_id, r.content["metrics"]["jobs"]) for r in replies)
            return super().aggregate_train(server_round, replies)

    server = ServerApp()

    @server.main()
    def main(grid, context):
        strategy = Watched(buffer_size=6, concurrency=6, fraction_evaluate=0.0)
        strategy.start(grid, arrays(0.0), num_rounds=8)

    run_simulation(
        server,
        Counting(fails_together),
        fleet=Equal(num_nodes=6),
        runtime=Runtime(workers, mode, group_size=4),
    )
    by_node = {node: [jobs for n, jobs in counted if n == node] for node, _ in counted}
    assert len(counted) == 48
    assert len(by_node) == 6
    for jobs in by_node.values():
        assert jobs == list(range(1, len(jobs) + 1))


def test_an_app_that_cannot_is_refused_or_left_alone():
    with pytest.raises(ConfigurationError, match="build_client_app"):
        Runtime(vectorise="always").executor(app_of(echo))
    assert isinstance(Runtime(vectorise="auto").executor(app_of(echo)), Inline)


# --- a worker that dies ---------------------------------------------------------------------------


class Fragile(QuadraticTask):
    """Kills its process when node 1 draws data: the first time, or always."""

    def __init__(self, marker, always):
        super().__init__()
        self.marker, self.always = marker, always

    def batches(self, partition_id, batch_size):
        if partition_id == 1 and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batches(partition_id, batch_size)


@pytest.mark.parametrize("always", [False, True])
def test_a_group_whose_worker_dies_is_done_again_one_by_one(always, tmp_path):
    task = Fragile(tmp_path / "killed", always)
    app = build_client_app(lambda _: ClientSpec(task, LocalTraining(local_steps=2), "cpu"))
    record = ArrayRecord(task.build_model().state_dict())
    items = [
        WorkItem(request(n, record=record), 1, 1001 + n, {"partition-id": n}, {}, metrics(), seed=n)
        for n in (0, 1, 2)
    ]
    with VectorisedExecutor(Processes(app, 1)) as executor:
        grouped = answers(executor, items)
    assert (tmp_path / "killed").exists()
    assert [isinstance(a.content, Error) for a in grouped] == [False, always, False]
