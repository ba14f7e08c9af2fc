import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent import formatting
from fedagent.formatting import described, printable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (35.24, "35.2 s"),
        (90, "90 s"),
        (120, "2 min"),
        (5400, "90 min"),
        (7200, "2 h"),
        (86_400 * 3.5, "3.5 days"),
    ],
)
def test_duration_uses_the_unit_one_would_say(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (4_100_000, "4.1 MB"), (999_999, "1,000 kB"), (2.5e12, "2.5 TB")],
)
def test_size_is_decimal(num_bytes: float, text: str) -> None:
    assert formatting.size(num_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (999.9, "1,000"),
        (0.91234, "0.912"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-12345, "-12,345"),
    ],
)
def test_number_is_never_in_powers_of_ten(value: float, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("no data", "no data"),
        ("Größe: 3 µs 数据", "Größe: 3 µs 数据"),
        ("fine\nWARNING: forged", r"fine\nWARNING: forged"),
        ("\x1b[2J\x07\r", r"\x1b[2J\x07\r"),
        ("a\u202eb\u2028c\x9bd\ud800", r"a\u202eb\u2028c\x9bd\ud800"),
        ("x" * 600, "x" * 500 + "... (600 characters)"),
    ],
)
def test_others_text_is_one_safe_line_of_bounded_length(text, printed):
    assert printable(text) == printed


@given(st.text(alphabet=st.characters(), max_size=2000))
def test_printable_text_is_printable_whatever_it_was(text):
    printed = printable(text)
    assert printed.isprintable()
    assert len(printed) < 1100
    printed.encode()


def test_fifty_megabytes_cost_no_time():
    begun_s = time.perf_counter()
    printable("\x1b" * 50_000_000)
    assert time.perf_counter() - begun_s < 1.0


class Mute(BaseException):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no\ndata"), r"ValueError: no\ndata"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Mute(), "Mute: its text cannot be had: __str__ raised SystemExit"),
        (type("E\n" * 9000, (Exception,), {})("x"), r"E\n" * 250 + "... (18,003 characters)"),
    ],
)
def test_an_exception_is_described_whatever_it_is(error, said):
    assert described(error) == said
