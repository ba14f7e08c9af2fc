"""How charts and widgets look, and the one place that imports Bokeh.

Colours are Okabe and Ito's, which colour-blind readers tell apart too. Ink and lines are set by
page.js, so that they suit a light page, a dark one and paper.
"""

from typing import Any

from fedagent.errors import imported

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
OF_GROUP = {"fast": "#56B4E9", "middle": "#009E73", "slow": "#D55E00", "unknown": "#999999"}
OF_KIND = ("#0072B2", "#56B4E9", "#F0E442", "#E69F00", "#CC79A7", "#D55E00", "#999999")
"""Of the timeline's kinds of jobs, in their order."""
OF_TIME = {
    "useful": "#009E73",
    "discounted": "#F0E442",
    "wasted": "#D55E00",
    "idle": "#BBBBBB",
}
LEGEND_INK = "#747C86"
"""Reads on white and on dark: a legend whose ink changes loses its colours on paper."""
TOOLS = "xpan,pan,box_zoom,xwheel_zoom,reset,save"

WIDGET_CSS = """
:host { color: var(--ink); font-family: inherit; --background-color: var(--card); }
.bk-btn, .bk-input { background: var(--card) !important; color: var(--ink) !important;
  border-color: var(--line) !important; }
.bk-btn.bk-active, .bk-btn:hover { background: var(--line) !important; }
.bk-btn.bk-active { font-weight: 600; }
label { color: var(--faint); }
"""
TABLE_CSS = """
.bk-data-table, .slick-viewport, .slick-pane, .slick-row, .slick-cell, .slick-header,
.slick-header-columns, .slick-header-column { background: var(--card) !important;
  color: var(--ink) !important; border-color: var(--line) !important; }
.slick-row.odd .slick-cell { background: var(--page) !important; }
.slick-cell.selected { background: var(--pick) !important; }
.slick-header-column { font-weight: 600; }
"""


def bokeh(module: str) -> Any:
    """Return a module of Bokeh.

    Raises
    ------
    DataUnavailableError
        If it is not installed; the message has the pip line.
    """
    return imported(f"bokeh.{module}", "fedagent[plots]", "The page of a run", "set page=false")


def figure(title: str, height: int, **options: Any) -> Any:
    """Return an empty figure as wide as its place on the page.

    It is a canvas: without a graphics card WebGL takes twice as long for 10,000 bars, and twelve
    times as long for 100 lines.
    """
    options = {"tools": TOOLS} | options
    made = bokeh("plotting").figure(
        title=title, height=height, sizing_mode="stretch_width", min_width=280, **options
    )
    made.background_fill_color = made.border_fill_color = None
    made.outline_line_color = None
    made.title.text_font_size = "14px"
    for axis in made.axis:
        axis.axis_label_text_font_style = "normal"
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.minor_tick_line_color = None
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.lod_threshold = None
    return made


def source(called: str, /, **columns: Any) -> Any:
    """Return a source of columns that the live view finds by its name."""
    return bokeh("models").ColumnDataSource(columns, name=called)


def styled(widget: Any) -> Any:
    """Return a widget in the page's colours."""
    widget.stylesheets = [WIDGET_CSS]
    return widget


def tooltip(figure: Any, rows: list[tuple[str, str]], renderers: list[Any], **how: Any) -> None:
    """Say something of what is under the pointer."""
    figure.add_tools(bokeh("models").HoverTool(tooltips=rows, renderers=renderers, **how))


def legend_below(figure: Any, items: list[Any]) -> None:
    """Put a legend under a figure, in rows that wrap."""
    legend = bokeh("models").Legend(
        items=items,
        orientation="horizontal",
        location="left",
        ncols="auto",
        label_text_font_size="12px",
        label_text_color=LEGEND_INK,
        border_line_color=None,
        background_fill_alpha=0.0,
        glyph_width=14,
        glyph_height=14,
        padding=0,
        margin=4,
        spacing=10,
        click_policy="hide",
    )
    figure.add_layout(legend, "below")
