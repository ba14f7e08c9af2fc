"""Jobs that are done twice: apps that keep something in their process are told of, no others."""

import logging
import os
import time

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, MetricRecord, RecordDict

from fedagent.simulation import Runtime
from fedagent.simulation.workers.checked import first_difference
from fedagent.simulation.workers.work import ClientResult
from tests.simulation.apps import app_of, arrays, count, draw, metrics
from tests.simulation.workers.test_executors import answers, item

memory = {"n": 0, "model": torch.nn.Linear(2, 1), "batches": iter(range(10_000))}


def counts_messages(message, context):
    memory["n"] += 1
    return RecordDict({"arrays": arrays(1.0, 0.1 * memory["n"]), **metrics()})


def trains_a_model_on(message, context):
    with torch.no_grad():
        memory["model"].weight += 1.0
    return RecordDict({"arrays": ArrayRecord(memory["model"].state_dict()), **metrics()})


def goes_on_with_an_iterator(message, context):
    return metrics(batch=next(memory["batches"]))


def remembers_in_its_context_what_it_counts(message, context):
    memory["n"] += 1
    context.state["seen"] = MetricRecord({"n": memory["n"]})
    return metrics()


def fails_the_second_time(message, context):
    memory["n"] += 1
    if memory["n"] > 1:
        raise ValueError("I have had enough")
    return metrics()


def reads_a_clock(message, context):
    return metrics(now=time.time())


def draws_by_itself(message, context):
    drawn = np.random.default_rng().normal(size=3)
    return RecordDict({"arrays": ArrayRecord([drawn]), **metrics()})


def said_of(answer, caplog, workers=1, num_items=8):
    with (
        caplog.at_level(logging.INFO, "flwr"),
        Runtime(workers=workers, check=True).executor(app_of(answer)) as executor,
    ):
        done = answers(executor, [item(n) for n in range(num_items)])
    return done, [r for r in caplog.records if "runtime.check" in r.getMessage()]


@pytest.mark.parametrize(
    ("answer", "difference"),
    [
        (counts_messages, r"array 'w' differs first at [1]: 0.2 against 0.1 (1 of 2 differ)"),
        (trains_a_model_on, "array 'weight' differs first at [0, 0]"),
        (goes_on_with_an_iterator, "'batch' in 'metrics' is 1 against 0"),
        (remembers_in_its_context_what_it_counts, "the Context's state, 'n' in 'seen' is 2"),
        (fails_the_second_time, "error: ValueError: I have had enough"),
    ],
)
def test_an_app_that_keeps_something_in_its_process_is_told_of_once(answer, difference, caplog):
    _, [said] = said_of(answer, caplog)
    assert said.levelno == logging.WARNING
    assert "node 1002" in said.getMessage()
    assert difference in said.getMessage()
    assert "keeps something in its process" in said.getMessage()


@pytest.mark.parametrize("answer", [reads_a_clock, draws_by_itself])
def test_an_app_that_takes_something_from_outside_is_told_from_that(answer, caplog):
    _, [said] = said_of(answer, caplog)
    assert "takes something from outside" in said.getMessage()


@pytest.mark.parametrize("answer", [draw, count])
def test_an_app_that_keeps_nothing_is_found_to_be_the_same(answer, caplog):
    _, [said] = said_of(answer, caplog)
    assert said.levelno == logging.INFO
    assert "3 jobs done twice gave the same bytes" in said.getMessage()


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_it_is_found_with_any_number_of_workers(workers, caplog):
    _, [said] = said_of(counts_messages, caplog, workers, num_items=32)
    assert "keeps something" in said.getMessage()


def test_the_answers_are_those_of_an_unchecked_run(caplog):
    checked, _ = said_of(draw, caplog)
    with Runtime(workers=1).executor(app_of(draw)) as executor:
        assert [a.content for a in checked] == [
            a.content for a in answers(executor, [item(n) for n in range(8)])
        ]


def test_this_process_does_no_clients_work(caplog):
    done, _ = said_of(lambda message, context: metrics(pid=os.getpid()), caplog, workers=0)
    assert os.getpid() not in {answer.content["metrics"]["pid"] for answer in done}


def result(record: object, state: RecordDict | None = None) -> ClientResult:
    content = record if isinstance(record, Error) else RecordDict({"r": record})
    return ClientResult(content, state or RecordDict())


def of_bytes(data: bytes) -> ArrayRecord:
    return ArrayRecord({"x": Array("uint8", (len(data),), "xgboost", data)})


NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (ArrayRecord([np.array([1.0, NAN])]), ArrayRecord([np.array([1.0, NAN])]), None),
        (ArrayRecord([np.array([NAN, 1.0])]), ArrayRecord([np.array([NAN, 2.0])]), "first at [1]"),
        (
            ArrayRecord([np.array(1.0)]),
            ArrayRecord([np.array(2.0)]),
            "at []: 1.0 against 2.0",
        ),
        (
            ArrayRecord([np.array([0.0])]),
            ArrayRecord([np.array([-0.0])]),
            "0.0 against -0.0",
        ),
        (of_bytes(b"a tree"), of_bytes(b"a book"), "array 'x' differs in its bytes"),
        (ArrayRecord([np.ones(2)]), ArrayRecord([np.ones(3)]), "float64[2] against float64[3]"),
        (arrays(1.0), ArrayRecord([np.ones(1)]), "entries of 'r': ['w'] against ['0']"),
        (MetricRecord({"x": NAN}), MetricRecord({"x": NAN}), None),
        (MetricRecord({"x": 1}), MetricRecord({"x": 1.0}), "'x' in 'r' is 1 against 1.0"),
        (MetricRecord({"x": 1}), Error(8, "broken"), "a reply against error: broken"),
        (Error(8, "broken"), Error(8, "broken"), None),
    ],
)
def test_the_first_difference_is_named(one, other, said):
    found = first_difference(result(one), result(other))
    assert (found is None) if said is None else (said in found)
