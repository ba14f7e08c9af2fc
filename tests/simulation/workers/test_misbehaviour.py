"""Clients' code that does whatever it likes: one failure each, and the next answer is right."""

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

from fedagent._flower import DRIVER_NODE_ID, ErrorCode, identify_process
from fedagent.simulation.workers.inline import Inline
from fedagent.simulation.workers.processes import Processes
from tests.chaos.misbehaving.misbehaving.deeds import (
    DEATHS,
    DEEDS,
    HARMLESS,
    RAISES,
    WITHOUT_END,
)
from tests.simulation.apps import draw, request
from tests.simulation.workers.test_executors import answers, item, within

app = ClientApp()


@app.train()
def train(message, context):
    reply = Message(draw(message, context), reply_to=message)
    deed = message.content["config"].get("do")
    return DEEDS[deed](reply, context) if deed in DEEDS else reply


@pytest.fixture(scope="module")
def done():
    """Do every deed in one worker, and an honest job after it; return both answers by deed."""
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    words = [word for deed in DEEDS for word in (deed, "work")]
    items = [item(n, request(n, do=word)) for n, word in enumerate(words)]
    with Processes(app, 1, job_limit_s=1.0) as executor:
        came = within(120, lambda: answers(executor, items))
    honest = answers(Inline(app), items[1::2])
    return {
        deed: (itself.content, following.content, expected.content)
        for deed, itself, following, expected in zip(
            DEEDS, came[::2], came[1::2], honest, strict=True
        )
    }


@pytest.mark.parametrize("deed", DEEDS)
def test_the_honest_job_after_it_is_answered_right(done, deed):
    _, following, expected = done[deed]
    assert following == expected


@pytest.mark.parametrize("deed", [deed.__name__ for deed in WITHOUT_END + DEATHS])
def test_what_has_no_end_or_dies_is_one_crash(done, deed):
    assert done[deed][0].code == ErrorCode.CLIENT_APP_CRASHED


@pytest.mark.parametrize("deed", [deed.__name__ for deed in RAISES])
def test_what_is_raised_is_one_failure_in_words(done, deed):
    itself, _, _ = done[deed]
    assert itself.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert itself.reason.isprintable()
    assert 10 < len(itself.reason) < 2000


@pytest.mark.parametrize("deed", [deed.__name__ for deed in HARMLESS])
def test_what_it_does_to_its_process_does_not_hurt_its_answer(done, deed):
    assert "metrics" in done[deed][0]


def test_what_is_no_reply_is_one_failure(done):
    for deed in ("return_nothing", "return_a_reply_without_content"):
        assert done[deed][0].code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


@pytest.mark.parametrize("deed", [deed.__name__ for deed in RAISES] + ["return_nothing"])
def test_in_this_process_too_it_is_one_failure(deed):
    itself, following = answers(Inline(app), [item(0, request(0, do=deed)), item(1)])
    assert itself.content.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "metrics" in following.content
