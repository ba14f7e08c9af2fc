"""A run as it goes: a live panel on a terminal, plain lines anywhere else."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedagent import formatting
from fedagent.callbacks.base import Callback, Settlement
from fedagent.callbacks.progress import Progress
from fedagent.callbacks.screen import Screen
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Baseline, Metric, RunEnd
from fedagent.update import Outcome

REFRESH_S = 0.25
BLOCKS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 32


class LiveDisplay(Callback):
    """Show how the run is doing.

    On a terminal, a panel that is redrawn at most four times a second. Anywhere else (a file, a
    pipe, CI), one line at the start, one per evaluation, and one at the end.

    Parameters
    ----------
    metric : the metric to show.
    target : its value to reach, or None.
    max_updates : where the run stops, or None.
    console : where to print; the standard output by default.
    baseline : what there is to beat, or None.
    """

    def __init__(
        self,
        metric: Metric,
        target: float | None = None,
        max_updates: int | None = None,
        console: Console | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        self._baseline = baseline
        self._progress = Progress(metric, target)
        self._max_updates = max_updates
        self._console = console or Console()
        self._screen: Screen | None = None
        self._drawn_at_s = -math.inf
        self._resumed_at = (0, 0.0)

    def on_start(self, statistics: Statistics) -> None:
        """Open the panel, or print the first line."""
        self._resumed_at = (statistics.num_updates, statistics.wall_s)
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._screen = Screen(self._console, self._panel(statistics))
        else:
            goal = _goal(self._progress, self._baseline, self._max_updates)
            self._print(f"started · {goal}")

    def state_dict(self) -> dict[str, Any]:
        """Return what the panel shows of the metric."""
        return self._progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Show it again."""
        if state:
            self._progress.load_state_dict(state)

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Redraw."""
        self._redraw(statistics)

    def on_version(self, statistics: Statistics) -> None:
        """Redraw."""
        self._redraw(statistics)

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Redraw, or print a line."""
        self._progress.take(evaluation)
        if self._screen is None:
            self._print(self._line(statistics, evaluation))
        else:
            self._redraw(statistics)

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Leave the last panel on the screen, and say why the run ended."""
        if self._screen is not None:
            self._screen.draw(self._panel(statistics))
            self._screen.close()
            self._screen = None
        self._print(
            " · ".join(
                [
                    f"ended: {end}",
                    f"round {statistics.server_round:,}",
                    f"version {statistics.version:,}",
                    f"{statistics.num_updates:,} updates",
                    *_times(statistics, statistics.now_s),
                    *_losses(statistics),
                ]
            )
        )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _redraw(self, statistics: Statistics) -> None:
        if self._screen is None or statistics.wall_s - self._drawn_at_s < REFRESH_S:
            return
        self._drawn_at_s = statistics.wall_s
        self._screen.draw(self._panel(statistics))

    def _line(self, statistics: Statistics, evaluation: Evaluation) -> str:
        return " · ".join(
            [
                f"round {evaluation.server_round:,}",
                f"version {evaluation.version:,}",
                f"{evaluation.num_updates:,} updates",
                formatting.duration(evaluation.now_s, statistics.is_virtual),
                self._values(evaluation),
                f"staleness {statistics.staleness_mean:.1f} (max {statistics.staleness_max})",
                _traffic(statistics),
                *_losses(statistics),
                *_waiting(statistics),
                *self._left(statistics),
            ]
        )

    def _values(self, evaluation: Evaluation) -> str:
        metric = self._progress.metric
        if (value := metric.value(evaluation)) is not None:
            shown, source = {metric.name: value}, ""
        else:
            shown, source = evaluation.numbers, f"{evaluation.source}: "
        return source + ", ".join(f"{k} {formatting.number(v, 4)}" for k, v in shown.items())

    def _panel(self, statistics: Statistics) -> Panel:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        progress = self._progress
        table.add_row(Text(progress.metric.name), _trend(progress))
        if self._baseline is not None:
            table.add_row("to beat", Text(_to_beat(self._baseline)))
        if progress.target is not None:
            table.add_row(f"to {progress.target:g}", _bar(_share_of_way(progress)))
        if self._max_updates:
            share = statistics.num_updates / self._max_updates
            table.add_row(f"to {self._max_updates:,} updates", _bar(share))
        at_work = statistics.in_flight / statistics.concurrency if statistics.concurrency else 0.0
        table.add_row(
            "in flight",
            _bar(at_work, f"{statistics.in_flight:,} of {statistics.concurrency:,}", "magenta"),
        )
        if waiting := _waiting(statistics):
            table.add_row("slots", waiting[0])
        table.add_row("updates", f"{statistics.num_updates:,} · {self._rate(statistics)}")
        times = [*_times(statistics, statistics.now_s), *self._left(statistics)]
        table.add_row("time", " · ".join(times))
        table.add_row(
            "staleness", f"mean {statistics.staleness_mean:.1f}, max {statistics.staleness_max}"
        )
        table.add_row("traffic", _traffic(statistics))
        outcomes = [f"{count:,} {outcome}" for outcome, count in statistics.by_outcome().items()]
        table.add_row("dispatches", Text(" · ".join(outcomes) or "-"))
        title = f"fedagent · round {statistics.server_round:,} · version {statistics.version:,}"
        return Panel(table, title=title, title_align="left", border_style="blue", expand=False)

    def _rate(self, statistics: Statistics) -> str:
        return f"{formatting.number(self._per_s(statistics))} per second"

    def _per_s(self, statistics: Statistics) -> float:
        updates, since_s = self._resumed_at
        elapsed_s = statistics.wall_s - since_s
        return (statistics.num_updates - updates) / elapsed_s if elapsed_s > 0 else 0.0

    def _left(self, statistics: Statistics) -> list[str]:
        """Return ["about 5 min left"], at the rate so far; nothing as long as none is known."""
        per_s = self._per_s(statistics)
        left = (self._max_updates or 0) - statistics.num_updates
        if left <= 0 or per_s <= 0:
            return []
        return [f"about {formatting.duration(float(f'{left / per_s:.2g}'))} left"]


def _goal(progress: Progress, baseline: Baseline | None, max_updates: int | None) -> str:
    name, target = progress.metric.name, progress.target
    goals = [name if target is None else f"{name} to {target:g}"]
    if baseline is not None:
        goals.append(_to_beat(baseline))
    if max_updates is not None:
        goals.append(f"at most {max_updates:,} updates")
    return " · ".join(goals)


def _to_beat(baseline: Baseline) -> str:
    return f"{baseline.name} {formatting.number(baseline.value, 4)}"


def _times(statistics: Statistics, now_s: float) -> list[str]:
    """Return the virtual and the real time; only the real one where there is no other."""
    virtual = [formatting.duration(now_s, is_virtual=True)] if statistics.is_virtual else []
    return [*virtual, f"{formatting.duration(statistics.wall_s)} real"]


def _waiting(statistics: Statistics) -> list[str]:
    """Return ["3 % waiting"]: the share of the slots' time in which no node was at work."""
    return [f"{1 - statistics.utilisation:.0%} waiting"] if statistics.slots_s > 0 else []


def _traffic(statistics: Statistics) -> str:
    down, up = formatting.size(statistics.bytes_down), formatting.size(statistics.bytes_up)
    return f"{down} down, {up} up"


def _losses(statistics: Statistics) -> list[str]:
    """Return what did not end as applied, such as ["2 failed, 1 rejected"]; empty if all did."""
    counts: Counter[str] = Counter()
    for (outcome, _), count in statistics.outcomes.items():
        counts[outcome] += count
    del counts[Outcome.APPLIED]
    return (
        [", ".join(f"{n:,} {outcome}" for outcome, n in sorted(counts.items()))] if counts else []
    )


def _trend(progress: Progress) -> Text:
    if progress.last is None:
        return Text("not measured yet", style="dim")
    best = math.nan if progress.best is None else progress.best
    return Text.assemble(
        (formatting.number(progress.last, 4), "bold"),
        f"  best {formatting.number(best, 4)}  ",
        (sparkline(progress.curve, BAR_WIDTH), "cyan"),
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """Return `values`, evenly thinned to `width`, as block characters; "x" is not finite."""
    step = max(1.0, (len(values) - 1) / (width - 1))
    thinned = [values[round(i * step)] for i in range(min(width, len(values)))]
    finite = [value for value in thinned if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BLOCKS[round((value - low) * scale)] if math.isfinite(value) else "x" for value in thinned
    )


def _share_of_way(progress: Progress) -> float:
    """Return how much of the way from the first value to the target is behind us."""
    first, target = progress.first, progress.target
    if first is None or target is None or progress.last is None:
        return 0.0
    newest = progress.last if math.isfinite(progress.last) else first
    return (newest - first) / (target - first) if target != first else 1.0


def _bar(share: float, label: str | None = None, style: str = "green") -> RenderableType:
    share = min(1.0, max(0.0, share))
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(1.0, share, width=BAR_WIDTH, complete_style=style, finished_style=style),
        label or f"{share:.0%}",
    )
    return bar
