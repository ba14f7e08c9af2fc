import gc
import io
import logging
import sys

import pytest
from flwr.app import ArrayRecord
from rich.console import Console

from fedagent.callbacks import LiveDisplay
from fedagent.callbacks.display import sparkline
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Baseline, Metric, RunEnd

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def progressed() -> Statistics:
    statistics = Statistics(
        version=12,
        num_updates=240,
        now_s=35.2,
        wall_s=4.0,
        is_virtual=True,
        concurrency=20,
        in_flight=17,
        busy_s=0.75 * 20 * 35.2,
        bytes_down=4_100_000,
        bytes_up=3_900_000,
        staleness_sum=432,
        staleness_max=9,
    )
    statistics.outcomes.update(
        {("applied", ""): 240, ("failed", "error"): 1, ("failed", "lost"): 1}
    )
    return statistics


def evaluated(statistics: Statistics, value: float) -> Evaluation:
    evaluation = Evaluation(12, 35.2, 240, "server", {"accuracy": value, "loss": 0.3})
    statistics.evaluated(evaluation)
    return evaluation


def plain() -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, width=40)


def terminal() -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(
        file=stream, force_terminal=True, width=100, height=40, _environ={"TERM": "xterm"}
    )


def test_plain_output_is_one_line_per_evaluation() -> None:
    stream, console = plain()
    display = LiveDisplay(
        Metric(), 0.95, max_updates=500, console=console, baseline=Baseline("forest", 0.71)
    )
    statistics = progressed()

    display.on_start(Statistics())
    display.on_version(statistics)
    display.on_evaluation(statistics, evaluated(statistics, 0.912))
    display.on_end(statistics, RunEnd("completed", "500 updates"), ArrayRecord)

    assert stream.getvalue().splitlines() == [
        "started · accuracy to 0.95 · forest 0.71 · at most 500 updates",
        "round 0 · version 12 · 240 updates · 35.2 virtual s · accuracy 0.912 · "
        "staleness 1.8 (max 9) · 4.1 MB down, 3.9 MB up · 2 failed · 25% waiting · "
        "about 4.3 s left",
        "ended: 500 updates · round 0 · version 12 · 240 updates · 35.2 virtual s · 4 s real · "
        "2 failed",
    ]


def test_real_time_is_not_called_virtual() -> None:
    stream, console = plain()
    statistics = progressed()
    statistics.is_virtual = False

    LiveDisplay(Metric(), console=console).on_evaluation(statistics, evaluated(statistics, 0.9))

    assert "· 35.2 s ·" in stream.getvalue()


def test_another_source_is_named_with_all_its_numbers() -> None:
    stream, console = plain()
    evaluation = Evaluation(12, 35.2, 240, "clients", {"accuracy": 0.8, "per_class": [1.0, 0.6]})

    LiveDisplay(Metric(), console=console).on_evaluation(progressed(), evaluation)

    assert "· clients: accuracy 0.8 ·" in stream.getvalue()


def test_markup_in_a_metric_is_text() -> None:
    stream, console = plain()
    statistics = progressed()
    evaluation = Evaluation(12, 1.0, 1, "server", {"[red]f1": 0.5})

    LiveDisplay(Metric("[red]f1"), console=console).on_evaluation(statistics, evaluation)

    assert "[red]f1 0.5" in stream.getvalue()


def test_terminal_shows_a_panel_with_the_numbers_and_gives_the_cursor_back() -> None:
    stream, console = terminal()
    display = LiveDisplay(Metric(), target=0.95, max_updates=480, console=console)
    statistics = progressed()
    streams = sys.stdout, sys.stderr

    display.on_start(Statistics(is_virtual=True))
    for value in (0.35, 0.912):
        display.on_evaluation(statistics, evaluated(statistics, value))
    display.on_end(statistics, RunEnd("completed", "480 updates"), ArrayRecord)

    shown = stream.getvalue()
    for words in (
        "version 12",
        "0.912",
        "94%",
        "50%",
        "17 of 20",
        "60 per second",
        "35.2 virtual s",
        "mean 1.8, max 9",
        "4.1 MB down, 3.9 MB up",
        "1 failed(error)",
        "ended: 480 updates",
    ):
        assert words in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == streams


def test_panel_is_drawn_four_times_a_second_at_most() -> None:
    stream, console = terminal()
    display = LiveDisplay(Metric(), console=console)
    statistics = Statistics()
    display.on_start(statistics)
    drawn_at_start = stream.getvalue().count("fedagent")

    for event in range(1000):
        statistics.wall_s = event / 1000
        display.on_version(statistics)
    drawn = stream.getvalue().count("fedagent") - drawn_at_start
    display.on_end(statistics, RunEnd("completed", "end"), ArrayRecord)

    assert drawn == 4


def test_dumb_terminal_gets_plain_lines() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, _environ={"TERM": "dumb"})

    LiveDisplay(Metric(), console=console).on_start(Statistics())

    assert stream.getvalue().startswith("started")


def test_log_lines_appear_above_the_panel_and_the_handler_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, console = terminal()
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(errors)
    logger = logging.getLogger("flwr")
    logger.addHandler(handler)
    try:
        display = LiveDisplay(Metric(), console=console)
        display.on_start(Statistics())
        logger.error("node 3 failed")
        display.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)
        assert handler.stream is errors
    finally:
        logger.removeHandler(handler)

    assert "node 3 failed" in stream.getvalue()
    assert errors.getvalue() == ""


def test_run_that_dies_gives_the_cursor_back() -> None:
    stream, console = terminal()
    display = LiveDisplay(Metric(), console=console)
    display.on_start(Statistics())
    assert SHOW_CURSOR not in stream.getvalue()

    del display
    gc.collect()

    assert stream.getvalue().endswith(SHOW_CURSOR)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([0.3, 0.3], "▁▁"),
        ([0.0, float("nan"), 7.0], "▁x█"),
        ([], ""),
        (list(range(1000)), "▁▃▆█"),
    ],
)
def test_sparkline_spans_from_least_to_greatest(values: list[float], line: str) -> None:
    assert sparkline(values, 4) == line


def test_without_a_limit_or_before_the_first_update_nobody_says_what_is_left() -> None:
    for max_updates, updates in ((None, 240), (500, 0), (240, 240)):
        stream, console = plain()
        statistics = progressed()
        statistics.num_updates = updates
        display = LiveDisplay(Metric(), None, max_updates=max_updates, console=console)
        display.on_start(Statistics())
        display.on_evaluation(statistics, evaluated(statistics, 0.5))
        assert "left" not in stream.getvalue()


def test_the_panel_says_what_is_left_and_how_long_slots_waited() -> None:
    stream, console = terminal()
    statistics = progressed()
    display = LiveDisplay(Metric(), None, max_updates=500, console=console)
    display.on_start(Statistics())
    display.on_version(statistics)
    display.on_end(statistics, RunEnd("completed", "500 updates"), ArrayRecord)
    assert "about 4.3 s left" in stream.getvalue()
    assert "25% waiting" in stream.getvalue()
