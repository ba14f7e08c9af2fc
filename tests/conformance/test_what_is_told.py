"""Mutation tests of who is believed, about what: mistakes planted between the parts of a run.

Each check is green as the code stands and must go red with the mistake in it.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent import FedBuff
from fedagent.admission.gate import Admission
from fedagent.proxy.federated_evaluation import FederatedEvaluation
from fedagent.rules.staleness import polynomial
from fedagent.simulation import Scripted
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from tests.simulation.apps import app_of, draw
from tests.simulation.workers.test_executors import answers, item
from tests.toy import TRUE_WEIGHTS, Log, client_app, run

SPEEDS = (1.0, 1.5, 2.0, 3.0, 7.0)
CLAIMS = ("version", "base-version", "base_version", "server-round", "staleness", "tau")


def error_of(version: int, arrays: ArrayRecord) -> MetricRecord:
    """Measure at the server what the toy's clients measure."""
    weights = arrays.to_torch_state_dict()["weight"][0]
    return MetricRecord({"error": float((weights - TRUE_WEIGHTS).norm())})


def check_clients_measure_the_version_that_their_metrics_are_filed_under() -> None:
    """Server and clients measure the same of the same version."""
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        concurrency=3,
        callbacks=[log],
        fraction_evaluate=0.5,
        evaluate_clients_every=1,
    )
    run(strategy, Scripted(num_nodes=5, times=SPEEDS), rounds=8, evaluate_fn=error_of)
    by_source: dict[str, dict[int, float]] = {"server": {}, "clients": {}}
    for evaluation in log.statistics.evaluations:
        by_source[evaluation.source][evaluation.version] = evaluation.metrics["error"]
    both = by_source["server"].keys() & by_source["clients"].keys()
    assert len(both) >= 3, f"only versions {sorted(both)} were measured by both"
    for version in both:
        server, clients = by_source["server"][version], by_source["clients"][version]
        assert clients == pytest.approx(server, rel=1e-6), f"version {version}"


def run_with(claim: float | None) -> tuple[list[int], bytes]:
    """Return every update's staleness and the model, with clients that claim a base version."""

    def claiming(partition: int, reply: RecordDict) -> RecordDict:
        honest = dict(reply["metrics"])
        claims = dict.fromkeys(CLAIMS, claim)
        metrics = MetricRecord({**honest, **claims})
        told = ConfigRecord(claims)
        return RecordDict({"arrays": reply["arrays"], "metrics": metrics, "config": told})

    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        concurrency=5,
        staleness=polynomial,
        callbacks=[log],
        fraction_evaluate=0.0,
    )
    client = client_app(claiming if claim is not None else None)
    done = run(strategy, Scripted(num_nodes=5, times=SPEEDS), rounds=8, client=client)
    model = done.result.arrays.to_numpy_ndarrays()
    taus = [s.staleness for s in log.settlements if s.staleness is not None]
    return taus, b"".join(array.tobytes() for array in model)


def check_a_client_s_word_about_its_base_version_counts_for_nothing() -> None:
    """Whatever clients claim, stalenesses and the model are those of clients that claim nothing."""
    honest = run_with(None)
    assert max(honest[0]) >= 2, "nobody is late, so there is nothing to lie about"
    for claim in (0, 7):
        assert run_with(claim) == honest, f"a claim of {claim} was heard"


def check_each_job_gets_its_own_answer() -> None:
    """A worker with several jobs at hand answers each as if it had been the only one."""
    alone, together = Inline(app_of(draw)), Processes(app_of(draw), workers=1)
    jobs = [item(number) for number in range(6)]
    try:
        for number, answer in enumerate(answers(together, jobs)):
            expected = answers(alone, [jobs[number]])[0].content["metrics"]
            assert answer.content["metrics"] == expected, f"job {number} got another's answer"
    finally:
        together.close()


def check_a_run_with_workers_is_the_run_without() -> None:
    """A worker trains the same model as no worker, with more jobs at hand than it can do."""

    def trained(workers: int) -> list[bytes]:
        strategy = FedBuff(buffer_size=2, concurrency=5, fraction_evaluate=0.0)
        done = run(strategy, Scripted(num_nodes=5, times=SPEEDS), rounds=4, workers=workers)
        return [array.tobytes() for array in done.result.arrays.to_numpy_ndarrays()]

    assert trained(1) == trained(0), "another model"


def files_metrics_of_the_version_before(patch: pytest.MonkeyPatch) -> None:
    right = FederatedEvaluation.ask
    sent: dict[int, ArrayRecord] = {}

    def ask(self, arrays, *more):
        version = self._dispatcher.statistics.version
        sent[version] = arrays
        right(self, sent.get(version - 1, arrays), *more)

    patch.setattr(FederatedEvaluation, "ask", ask)


def believes(claim: str) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = Admission.check

        def check(self, reply, *more, **named):
            update = right(self, reply, *more, **named)
            told = reply.content["metrics"].get(claim)
            return update if told is None else replace(update, staleness=int(told))

        patch.setattr(Admission, "check", check)

    plant.__name__ = f"believes_{claim}"
    return plant


def believes_a_config_beside_the_metrics(patch: pytest.MonkeyPatch) -> None:
    right = Admission.check

    def check(self, reply, *more, **named):
        update = right(self, reply, *more, **named)
        told = reply.content.config_records.get("config", {}).get("base-version")
        return update if told is None else replace(update, staleness=int(told))

    patch.setattr(Admission, "check", check)


def swaps_the_answers_of_two_jobs(patch: pytest.MonkeyPatch) -> None:
    submit, result = Processes.submit, Processes.result
    asked: list[object] = []

    def note(self, job, due_s=0.0):
        asked.append(submit(self, job, due_s))
        return asked[-1]

    def of_its_neighbour(self, future):
        neighbour = asked.index(future) ^ 1
        return result(self, asked[neighbour] if neighbour < len(asked) else future)

    patch.setattr(Processes, "submit", note)
    patch.setattr(Processes, "result", of_its_neighbour)


MISTAKES = [
    (
        check_clients_measure_the_version_that_their_metrics_are_filed_under,
        files_metrics_of_the_version_before,
    ),
    *(
        (check_a_client_s_word_about_its_base_version_counts_for_nothing, believes(claim))
        for claim in CLAIMS
    ),
    (
        check_a_client_s_word_about_its_base_version_counts_for_nothing,
        believes_a_config_beside_the_metrics,
    ),
    (check_each_job_gets_its_own_answer, swaps_the_answers_of_two_jobs),
    (check_a_run_with_workers_is_the_run_without, swaps_the_answers_of_two_jobs),
]


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _ in MISTAKES))
def test_the_check_is_green(check):
    check()


@pytest.mark.parametrize(
    ("check", "plant"),
    MISTAKES,
    ids=[f"{check.__name__.removeprefix('check_')}-{plant.__name__}" for check, plant in MISTAKES],
)
def test_planted_mistake_turns_the_check_red(check, plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
