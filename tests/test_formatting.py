import pytest

from fedagent import formatting


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
