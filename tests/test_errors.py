"""What a dataclass's fields may hold, what is said of what they may not, and missing packages."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import (
    ConfigurationError,
    DataUnavailableError,
    Interval,
    check_fields,
    imported,
    installed,
    must_fit,
    one_of,
    suggestion,
)


@dataclass(frozen=True)
class Link:
    latency_s: Annotated[float, Interval("[0, inf)")] = 0.0
    bytes_per_s: Annotated[float, Interval("(0, inf]", "nothing would ever arrive")] = math.inf
    retries: Annotated[int | None, Interval("[0, 9]")] = None
    kind: Literal["wired", "radio"] = "wired"
    losses: Annotated[Sequence[float], Interval("[0, 1)")] = ()
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"latency_s": 0},
        {"latency_s": np.float32(2.5)},
        {"retries": 9},
        {"kind": "radio"},
        {"losses": [0.0, 0.999]},
        {"label": math.nan},
    ],
)
def test_what_a_field_allows_is_taken(fields):
    assert Link(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"latency_s": -1.0}, r"Link: latency_s=-1\.0 must lie in \[0, inf\)\."),
        ({"latency_s": math.nan}, "latency_s=nan"),
        ({"latency_s": math.inf}, "latency_s=inf"),
        ({"latency_s": [0.5]}, "latency_s=.* must be a number"),
        ({"latency_s": None}, "latency_s=None must be a number"),
        ({"latency_s": "fast"}, "latency_s='fast' must be a number"),
        ({"bytes_per_s": 0}, r"\(0, inf\]: nothing would ever arrive"),
        ({"retries": 10}, "retries=10"),
        ({"retries": 1.5}, "retries=1.5 must be a whole number"),
        ({"kind": "smoke"}, "kind='smoke' is unknown; choose one of: wired, radio"),
        ({"losses": (0.1, 1.0)}, "losses=1.0"),
        ({"losses": (0.1, math.nan)}, "losses=nan"),
    ],
)
def test_what_it_does_not_allow_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        Link(**fields)


@given(
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    brackets=st.tuples(st.sampled_from("[("), st.sampled_from("])")),
    number=st.floats(),
)
def test_an_interval_holds_what_its_brackets_say(low, width, brackets, number):
    high = low + width
    interval = Interval(f"{brackets[0]}{low!r}, {high!r}{brackets[1]}")
    assert (number in interval) == (low < number < high or number in _ends(low, high, brackets))
    assert (low in interval) == (brackets[0] == "[")
    assert (high in interval) == (brackets[1] == "]")


def _ends(low, high, brackets):
    return (
        {low}
        if brackets == ("[", ")")
        else {high}
        if brackets == ("(", "]")
        else ({low, high} if brackets == ("[", "]") else set())
    )


MISSING = "no_such_package"


@pytest.mark.parametrize("find", [imported, installed])
def test_a_missing_package_is_named_with_its_user_and_its_pip_line(find):
    with pytest.raises(DataUnavailableError) as raised:
        find(MISSING, "fedagent[stars]", "The horoscope")
    message = str(raised.value)
    assert message.startswith(f"The horoscope needs {MISSING}, which")
    assert message.endswith('; run: pip install "fedagent[stars]"')


@pytest.mark.parametrize("find", [imported, installed])
def test_what_works_without_the_package_is_named_too(find):
    with pytest.raises(DataUnavailableError, match=r'"stars", or look up: app\.sky=clear$'):
        find(MISSING, "stars", "The horoscope", "look up: app.sky=clear")


def test_a_package_that_is_installed_and_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import the_other_half")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataUnavailableError, match="No module named 'the_other_half'"):
        imported("half_a_package", "stars", "The horoscope")


def test_what_is_there_is_returned():
    assert imported("os.path", "stars", "The horoscope") is sys.modules["os.path"]
    assert installed("pytest", "stars", "The horoscope").version == pytest.__version__


KNOWN = ["app", "app.seed", "fleet", "fleet.seed", "fleet.links.latency_s", "max_updates", "x/y"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("max_update", "did you mean max_updates?"),
        ("fleet.sed", "did you mean fleet.seed?"),  # and not app.seed: what stands beside it
        ("fleet.links.latncy_s", "did you mean fleet.links.latency_s?"),
        ("strategy.seed", "did you mean app.seed or fleet.seed?"),  # the same name elsewhere
        ("xyzzy", "there are: app, fleet, max_updates."),
    ],
)
def test_a_misspelling_is_recognised_where_it_stands(word, says):
    assert suggestion(word, KNOWN) == says


@pytest.mark.parametrize(("value", "hint"), [("allways", " Did you mean always?"), ("zzz", "")])
def test_an_unknown_value_names_the_choices_and_what_it_resembles(value, hint):
    with pytest.raises(ConfigurationError) as error:
        one_of("vectorise", value, ("never", "always"))
    assert str(error.value) == (
        f"vectorise={value!r} is unknown; choose one of: never, always.{hint}"
    )


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, int),
        (3, float),
        (None, int | None),
        (True, bool),
        ("auto", Literal["auto", "never"]),
        (None, Literal["auto"] | None),
        (3, int | Literal["auto"]),
        ("auto", int | Literal["auto"]),
        ("anything", list[int]),  # no scalar: not this check's business
        ("anything", object),
    ],
)
def test_a_value_that_fits_passes(value, annotation):
    must_fit("key", value, annotation, "place")


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        (2.5, int, "key=2.5 must be int (place says so)."),
        (True, int, "key=True must be int (place says so)."),
        ("3", float | None, "key='3' must be float (place says so)."),
        (None, int, "key=None must be int (place says so)."),
        ("allways", Literal["always"], "Did you mean always?"),
        ("allways", Literal["always"] | None, "choose one of: always"),
        (3, Literal["always"], "key=3 is unknown; choose one of: always."),
        ("sometimes", int | Literal["auto"], "key='sometimes' must be 'auto' or int"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_would(value, annotation, says):
    with pytest.raises(ConfigurationError) as error:
        must_fit("key", value, annotation, "place")
    assert says in str(error.value)
