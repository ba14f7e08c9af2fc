"""The Ray executor: the same contract as worker processes."""

import time

import pytest
from flwr.app import Error

from fedagent._flower import ErrorCode
from fedagent.errors import ConfigurationError
from fedagent.simulation import Runtime
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.vectorised import VectorisedExecutor
from tests.simulation.apps import app_of, draw, fail_as_told
from tests.simulation.workers.test_executors import answers, item, told
from tests.simulation.workers.test_vectorised import item as training_item
from tests.simulation.workers.test_vectorised import train_app, weights

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    ray.init(num_cpus=2, logging_level="warning", include_dashboard=False)
    yield
    ray.shutdown()


def executor_of(app):
    return Runtime(backend="ray", workers=None).executor(app)


@pytest.mark.slow
def test_answers_are_those_of_this_process():
    items = [item(n) for n in range(6)]
    with executor_of(app_of(draw)) as executor:
        assert [a.content for a in answers(executor, items)] == [
            a.content for a in answers(Inline(app_of(draw)), items)
        ]
    assert ray.is_initialized(), "a cluster that was there before is left alone"


@pytest.mark.slow
def test_a_task_that_kills_its_worker_is_the_only_one_to_fail():
    with executor_of(app_of(fail_as_told)) as executor:
        outcomes = answers(executor, told("work", "die", "raise", "work"))
    codes = [a.content.code if isinstance(a.content, Error) else None for a in outcomes]
    assert codes == [
        None,
        ErrorCode.CLIENT_APP_CRASHED,
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        None,
    ]


@pytest.mark.slow
def test_clients_are_trained_together_there_too():
    items = [training_item(n) for n in range(3)]
    grouped = VectorisedExecutor(executor_of(train_app()))
    for one, other in zip(
        answers(grouped, items),
        answers(VectorisedExecutor(Inline(train_app())), items),
        strict=True,
    ):
        mine, theirs = weights(one), weights(other)
        assert all(bool((mine[name] == theirs[name]).all()) for name in theirs)


def test_workers_must_be_positive():
    with pytest.raises(ConfigurationError, match="workers=0"):
        Runtime(backend="ray", workers=0).executor(app_of(draw))


@pytest.mark.slow
def test_a_task_that_takes_longer_than_the_limit_is_the_only_one_to_fail():
    def sleep_as_told(message, context):
        if message.content["config"].get("do") == "sleep":
            time.sleep(1000)
        return fail_as_told(message, context)

    runtime = Runtime(backend="ray", workers=None, job_limit_s=2.0)
    with runtime.executor(app_of(sleep_as_told)) as executor:
        outcomes = answers(executor, told("work", "sleep", "work"))
    codes = [a.content.code if isinstance(a.content, Error) else None for a in outcomes]
    assert codes == [None, ErrorCode.CLIENT_APP_CRASHED, None]


@pytest.mark.slow
def test_whatever_a_task_raises_is_its_failure():
    def panic(message, context):
        raise GeneratorExit("no more")

    with executor_of(app_of(panic)) as executor:
        [answer] = answers(executor, [item(0)])
    assert answer.content.reason.startswith("GeneratorExit: no more")
