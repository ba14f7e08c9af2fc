"""What the checks say, and what they let pass."""

from typing import Literal

import pytest

from fedagent.errors import ConfigurationError, must_fit, one_of, suggestion

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
