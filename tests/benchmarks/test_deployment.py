"""What the deployment benchmark counts, and the slow link it makes."""

import json
import socket
import threading
import time

import pytest

from benchmarks.deployment.__main__ import report
from benchmarks.deployment.round_trips import Measured, set_ups, summarise
from benchmarks.deployment.slow_link import slow_link


def times(*trips):
    return {"round_trips": [list(trip) for trip in trips], "failures": ["one"]}


def test_the_first_round_trip_of_every_node_and_what_overlaps_it_is_left_out():
    measured = summarise(
        times(
            (1, 0.0, 5.0),
            (2, 0.0, 10.0),  # the last first one: counting begins here
            (1, 5.0, 8.0),
            (1, 8.0, 11.0),  # counts as an update; was sent before
            (1, 11.0, 12.0),
            (2, 10.0, 13.0),
            (2, 13.0, 14.0),
        )
    )
    assert measured == Measured(updates_per_s=4 / 4.0, median_round_trip_s=1.0, failures=1)


def test_beside_a_slow_node_the_others_are_counted():
    fast = [(k, float(t), t + 1.0) for t in range(10) for k in (1, 2)]
    measured = summarise(times(*fast, (3, 0.0, 4.0), (3, 4.0, 9.0)), without_slowest=True)
    assert measured.updates_per_s == pytest.approx(2.0)


def test_nothing_to_count_is_an_error():
    with pytest.raises(RuntimeError, match="No round trip"):
        summarise(times((1, 0.0, 5.0)))


def test_the_last_line_has_both_set_ups_and_their_ratio():
    measured = {
        "flower_default/nothing/2": Measured(0.25, 7.0, 0),
        "node/nothing/2": Measured(0.5, 3.0, 0),
        "fedagent/nothing/2": Measured(3.0, 0.7, 0),
    }
    line = json.loads(json.dumps(report(measured, "nothing", 2)))
    assert line["updates_per_s"] == {"fedagent": 3.0, "flower_default": 0.25}
    assert line["median_round_trip_s"] == {"fedagent": 0.7, "flower_default": 7.0}
    assert line["ratio"] == 12.0
    assert line["all"]["node/nothing/2"]["updates_per_s"] == 0.5


def test_the_two_nodes_of_flowers_set_up_get_whole_rounds():
    for quick in (True, False):
        ours = {s.name: s for s in set_ups(prefetch=1, quick=quick)}
        assert ours["flower_default"].program == ("flower-supernode",)
        assert (ours["fedagent"].strategy, ours["fedagent"].prefetch) == ("fedbuff", 1)


def test_a_slow_link_lets_so_many_bytes_through_and_loses_none():
    def echo(server):
        connection, _ = server.accept()
        while data := connection.recv(65_536):
            connection.sendall(data)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with slow_link(server.getsockname()[1], bytes_per_s=100e3) as port:
            sent = bytes(range(250)) * 200
            begin_s = time.monotonic()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: client.recv(65_536), b""))
    assert received == sent
    assert time.monotonic() - begin_s >= 0.45, "50 kB at 100 kB/s"
