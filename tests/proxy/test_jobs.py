"""The table of what every node is doing."""

from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Version
from fedagent.update import Dispatch


def dispatch(token, node_id=1, sent_at_s=0.0):
    return Dispatch(f"id-{token}", node_id, 0, token, sent_at_s, 60.0)


def own(number):
    return Version(number, None, None)


def test_a_job_is_found_by_its_token_whatever_the_order_of_sending():
    jobs = Jobs()
    first, second = own(1), own(2)
    jobs.build(1, "a", first)
    jobs.build(1, "b", second)
    assert jobs.send(1, "b").base is second
    assert jobs.send(1, "a").base is first
    assert jobs.num_nodes == 1


def test_a_node_that_was_done_and_begins_again_has_been_free_since_it_was_asked():
    jobs = Jobs()
    first, second = dispatch("a"), dispatch("b")
    for job in (first, second):
        jobs.build(1, job.token, None)
        jobs.send(1, job.token)
    jobs.end(first, 50.0, succeeded=True)
    assert jobs.begun_s(second) == 50.0, "it was queued behind the first"
    jobs.end(second, 90.0, succeeded=True)
    jobs.build(1, "c", None)
    jobs.send(1, "c")
    assert jobs.begun_s(dispatch("c", sent_at_s=40.0)) == 40.0, "nothing was before it"


def test_a_token_of_another_node_or_of_nobody_is_no_job_of_ours():
    jobs = Jobs()
    jobs.build(1, "a", own(1))
    assert jobs.send(2, "a") is None
    assert jobs.send(3, "made up") is None
    assert jobs.num_nodes == 2, "they are at work all the same"
    assert (jobs.unapplied(2, 0), jobs.unapplied(3, 0)) == (["a"], ["made up"])
    assert [job.node_id for job in jobs.drop_unsent()] == [1]


def test_what_was_built_and_not_sent_is_dropped_once_and_leaves_nothing_behind():
    jobs = Jobs()
    jobs.build(1, "a", None)
    jobs.build(1, "b", None)
    jobs.send(1, "b")
    assert jobs.unapplied(1, 0) == ["a", "b"]
    assert [job.node_id for job in jobs.drop_unsent()] == [1]
    assert jobs.drop_unsent() == []
    assert jobs.unapplied(1, 0) == ["b"]


def test_two_messages_with_one_token_end_one_after_the_other():
    jobs = Jobs()
    jobs.build(1, "a", None)
    jobs.send(1, "a")
    jobs.send(1, "a")  # an override sent it twice
    jobs.end(dispatch("a"), 1.0, succeeded=True)
    assert jobs.num_nodes == 1
    jobs.end(dispatch("a"), 2.0, succeeded=True)
    assert jobs.num_nodes == 0
    assert not jobs.has_room


def test_a_queued_job_begins_when_the_one_before_has_ended():
    jobs = Jobs()
    for token in "ab":
        jobs.build(1, token, None)
        jobs.send(1, token)
    jobs.end(dispatch("a"), 5.0, succeeded=True)
    assert jobs.begun_s(dispatch("b", sent_at_s=1.0)) == 5.0
    assert jobs.begun_s(dispatch("c", node_id=2, sent_at_s=1.0)) == 1.0
    assert jobs.take_with_room() == [(1, 1)]
    assert jobs.take_with_room() == [], "each is told of once"


def test_a_node_that_failed_has_no_room_for_another_job():
    jobs = Jobs()
    for token in "ab":
        jobs.build(1, token, None)
        jobs.send(1, token)
    jobs.end(dispatch("a"), 5.0, succeeded=False)
    assert not jobs.has_room


def test_a_received_update_is_in_no_model_until_the_next_version():
    jobs = Jobs()
    jobs.build(1, "a", None)
    jobs.send(1, "a")
    jobs.receive(dispatch("a"), version=4)
    jobs.end(dispatch("a"), 1.0, succeeded=True)
    for _ in range(3):
        assert jobs.unapplied(1, newest=4) == ["a"], "however often that is asked"
    assert jobs.unapplied(1, newest=5) == []
    assert jobs.unapplied(1, newest=4) == [], "it is in a model now, for good"


def test_an_update_is_in_no_older_version_that_a_rule_went_back_to():
    jobs = Jobs()
    jobs.receive(dispatch("a"), version=4)
    assert jobs.unapplied(1, newest=3) == ["a"]


def test_a_node_whose_jobs_have_ended_takes_no_memory():
    jobs = Jobs()
    for node_id in range(3):
        job = dispatch(f"of {node_id}", node_id)
        jobs.build(node_id, job.token, own(1))
        jobs.send(node_id, job.token)
        jobs.end(job, 5.0, succeeded=True)
    jobs.build(7, "never sent", own(1))
    jobs.drop_unsent()
    assert not any(vars(jobs).values())
