"""What clients' code raises, and copies that it makes of its process."""

import os
import signal
import time

import pytest

from fedagent.process.containment import ClientCodeError, contained, safe_traceback


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_is_raised_becomes_one_error_with_its_words(kind):
    with (
        pytest.raises(
            ClientCodeError, match=rf"^{kind.__name__}: no data \(.*test_containment.py:\d+\)$"
        ) as caught,
        contained(),
    ):
        raise kind("no data")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_handler_of_a_signal_raises_passes(number):
    def leave(*_):
        raise SystemExit("the user wants to stop")

    def be_interrupted():
        os.kill(os.getpid(), number)
        time.sleep(10)

    before = signal.signal(number, leave)
    try:
        with pytest.raises(SystemExit, match="the user wants to stop"), contained():
            be_interrupted()
        assert signal.getsignal(number) is leave
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("ending", ["returns", "raises", "exits"])
def test_a_copy_of_the_process_does_not_come_out(ending):
    came_out, end = os.pipe()
    copies = []
    with contained():
        if (copy := os.fork()) == 0 and ending != "returns":
            raise {"raises": ValueError, "exits": SystemExit}[ending]
        copies.append(copy)
    os.write(end, b"x")
    os.waitpid(copies[0], 0)
    assert os.read(came_out, 10) == b"x", "the copy came out, too"


def test_a_traceback_says_where_and_forges_no_line():
    with pytest.raises(ValueError, match="all is well") as caught:
        raise ValueError("\x1b[2J\nall is well" + "x" * 10_000)
    text = safe_traceback(caught.value)
    assert "test_containment.py" in text
    assert "\x1b" not in text
    assert text.splitlines()[-1].startswith(r"ValueError: \x1b[2J\nall is well")
    assert len(text) < 5000
