"""A SuperNode in a network namespace of its own, on a link that tbf shapes. Needs root."""

import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager, suppress

import pytest

from benchmarks.reliability.real_fleet import Fleet, check_the_counts, running


def ip(*words):
    subprocess.run(words, check=True, capture_output=True, timeout=30)


@contextmanager
def shaped_link(rate):
    """Yield the namespace's name and the address of this side; both directions at `rate`."""
    number = os.getpid() % 250
    name, outside, inside = f"fedagent{number}", f"fa{number}o", f"fa{number}i"
    try:
        ip("ip", "netns", "add", name)
        ip("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        ip("ip", "addr", "add", f"10.213.{number}.1/30", "dev", outside)
        ip("ip", "link", "set", outside, "up")
        within = ("ip", "netns", "exec", name)
        ip(*within, "ip", "addr", "add", f"10.213.{number}.2/30", "dev", inside)
        ip(*within, "ip", "link", "set", inside, "up")
        ip(*within, "ip", "link", "set", "lo", "up")
        tbf = ("root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        ip("tc", "qdisc", "add", "dev", outside, *tbf)
        ip(*within, "tc", "qdisc", "add", "dev", inside, *tbf)
        yield name, f"10.213.{number}.1"
    finally:
        for words in (("ip", "link", "del", outside), ("ip", "netns", "del", name)):
            with suppress(subprocess.CalledProcessError):
                ip(*words)


@pytest.fixture
def slow_namespace():
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs root, ip and tc")
    with ExitStack() as stack:
        try:
            link = stack.enter_context(shaped_link("1mbit"))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine does not allow it: {error.stderr.decode()}")
        yield link


@pytest.mark.slow
def test_a_device_on_a_slow_link_holds_up_nobody_and_loses_nothing(tmp_path, slow_namespace):
    """200 kB down and up at 1 Mbit/s take over three seconds; on loopback a job takes a half."""
    namespace, address = slow_namespace
    flags = ("--host=0.0.0.0",)
    fleet = Fleet(tmp_path, *flags, num_nodes=2, concurrency=3, seconds=0.1, parameters=50_000)
    with running(fleet, 2):
        fleet.start_node(2, address, ("ip", "netns", "exec", namespace))
        fleet.wait(lambda: fleet.delivered()["2"] >= 2, "the slow device delivers twice")
        summary = fleet.finish()
    check_the_counts(fleet, summary)
    slow = [s for s in fleet.settlements() if s["outcome"] == "applied"]
    by_node = {s["node"]: [] for s in slow}
    for s in slow:
        by_node[s["node"]].append(s["now_s"])
    fast_1, fast_2, slowest = sorted(by_node.values(), key=len, reverse=True)
    begin_s, end_s = slowest[0], slowest[1]
    for fast in (fast_1, fast_2):
        assert sum(begin_s < now_s < end_s for now_s in fast) >= 2, "they went on meanwhile"
    assert not [s for s in fleet.settlements() if s["outcome"] == "failed"]
