"""The file of devices: what its rows say, that both ends agree, and how a mistake is named."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import ConfigurationError
from fedagent.nodes import device_file
from fedagent.nodes.courses import Course
from fedagent.nodes.device_file import COLUMNS, Device, parse, render

INF = math.inf
HEAD = ",".join(COLUMNS)


def test_the_example_of_the_module_is_read_as_it_says():
    lines = device_file.__doc__.splitlines()
    example = "\n".join(line.strip() for line in lines if line.startswith("    "))
    a, b = parse(example, "example.csv")
    assert a == Device(
        "a",
        0.5,
        downloads=Course((0.0, 60.0), (250000.0, 0.0), 3600.0),
        uploads=Course((0.0,), (125000.0,), 3600.0),
        presence=Course((0.0, 90.0), (1.0, 0.0), 3600.0),
    )
    assert b == Device("b", 2.0)


def test_columns_come_in_any_order_and_most_may_be_missing():
    text = "# measured in May\n\nseconds_per_step, device\n0.5, a\n2,b\n"
    assert parse(text, "f") == [Device("a", 0.5), Device("b", 2.0)]


def test_rows_of_devices_may_alternate():
    rows = ["a,0,1,10,,", "b,0,2,20,,", "a,5,,11,,", "b,7,2.0,21,,"]
    a, b = parse("\n".join([HEAD, *rows]), "f")
    assert a.downloads == Course((0.0, 5.0), (10.0, 11.0))
    assert b.downloads == Course((0.0, 7.0), (20.0, 21.0))


numbers = st.floats(1e-3, 1e9)
rates = numbers | st.sampled_from([0.0, INF])


@st.composite
def courses(draw, period_s: float, values):
    times = draw(st.lists(st.floats(0.5, 99.0), max_size=4, unique=True).map(sorted))
    drawn = [draw(values.filter(lambda v: v > 0))]
    for _ in times:
        drawn.append(draw(values.filter(lambda v: v != drawn[-1])))
    if math.isinf(period_s) and not drawn[-1]:
        times, drawn = times[:-1], drawn[:-1]
    return Course((0.0, *times), tuple(drawn), period_s)


@st.composite
def devices(draw):
    period_s = draw(st.sampled_from([100.0, INF]))
    flow, presence = courses(period_s, rates), courses(period_s, st.sampled_from([0.0, 1.0]))
    name = draw(st.sampled_from(["a", "a phone, mine", 'with "quotes"', "17"]))
    return Device(name, draw(numbers), draw(flow), draw(flow), draw(presence))


@given(device=devices())
def test_what_is_written_is_read_as_it_was(device):
    assert parse(render([device]), "f") == [device]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], " has no device"),
        (["a,0,1,1"], "line 2: 4 cells, but the head has 6"),
        ([",0,1,,,"], "line 2, column device: it is empty"),
        (["a,0,,1,,"], "line 2, column seconds_per_step: it is empty in the first row"),
        (["a,0,0,,,"], "line 2, column seconds_per_step: '0' must be seconds, more than 0"),
        (["a,0,inf,,,"], "column seconds_per_step: 'inf'"),
        (["a,0,fast,,,"], "column seconds_per_step: 'fast'"),
        (["a,0,1,,,", "a,5,2,,,"], "line 3, column seconds_per_step: device a has 1 already"),
        (["a,3,1,,,"], "line 2, column time_s: device a begins at 3; give it a row at 0"),
        (["a,0,1,,,", "a,0,,5,,"], "line 3, column time_s: 0 does not come after 0"),
        (["a,0,1,,,", "a,9,,5,,", "a,8,,6,,"], "line 4, column time_s: 8 does not come after 9"),
        (["a,0,1,,,", "a,nan,,5,,"], "line 3, column time_s: 'nan'"),
        (["a,0,1,,,", "a,inf,,5,,"], "line 3, column time_s: 'inf'"),
        (["a,0,1,,,", "a,9,,,,", "a,10,,5,,"], "line 3: only the last row"),
        (["a,0,1,-1,,"], "line 2, column download_bytes_per_s: '-1' must be"),
        (["a,0,1,,nan,"], "line 2, column upload_bytes_per_s: 'nan' must be"),
        (["a,0,1,,,yes"], r"line 2, column online: 'yes' must be 1 \(online\) or 0 \(not\)"),
        (["a,0,1,0,,"], "column download_bytes_per_s: device a stays at 0 for ever"),
        (["a,0,1,0,,", "a,9,,,,"], "column download_bytes_per_s: device a stays at 0 for ever"),
        (["a,0,1,,5,", "a,9,,,0,"], "line 3, column upload_bytes_per_s: device a stays at 0"),
        (["a,0,1,,,0"], "column online: device a stays at 0 for ever, so it would never come back"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_column(rows, named):
    with pytest.raises(ConfigurationError, match=f"^f.csv.*{named}"):
        parse("\n".join([HEAD, *rows]), "f.csv")


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ("time_s", "the head lacks device and seconds_per_step"),
        ("device,time_s", "lacks seconds_per_step; the columns are device,time_s,"),
        ("device,seconds_per_stp", "'seconds_per_stp' is no column; did you mean seconds_per_step"),
        ("device,seconds_per_step,device", "column device is there twice"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(head, named):
    with pytest.raises(ConfigurationError, match=f"f.csv, line 1: .*{named}"):
        parse(f"{head}\na,1\n", "f.csv")


def test_an_empty_file_says_what_it_lacks():
    with pytest.raises(ConfigurationError, match="the head lacks device and seconds_per_step"):
        parse("\n# nothing\n", "f.csv")
