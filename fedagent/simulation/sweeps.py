"""The jobs of a sweep: what ``-m seed=1,2 strategy=fedasync,fedbuff`` stands for."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from hydra.errors import HydraException

from fedagent.errors import require


def jobs(words: Sequence[str], groups: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield what shows whether every job of a sweep can be composed.

    All combinations of choices, since each has keys of its own; every other value once.

    Parameters
    ----------
    words : Hydra overrides, of which some name several values.
    groups : the config groups and what each offers.

    Raises
    ------
    ConfigurationError
        If a word stands for no value.
    """
    values = [_swept(word, groups) for word in words]
    is_choice = [word.lstrip("+~").split("=")[0] in groups for word in words]
    first = [those[0] for those in values]
    combined = (those if free else those[:1] for those, free in zip(values, is_choice, strict=True))
    yield from map(list, itertools.product(*combined))
    for place, those in enumerate(values):
        for value in those[1:] if not is_choice[place] else ():
            yield [*first[:place], value, *first[place + 1 :]]


def _swept(word: str, groups: Mapping[str, list[str]]) -> list[str]:
    """Return an override for every value that a word of a sweep stands for."""
    try:
        override = OverridesParser.create().parse_overrides([word])[0]
    except HydraException:
        return [word]  # composing says what is wrong with it
    if not override.is_sweep_override():
        return [word]
    key, swept = override.get_key_element(), override.value()
    if isinstance(swept, IntervalSweep):  # which an optimiser samples from
        values = [str(swept.start)]
    elif isinstance(swept, Glob):
        values = swept.filter(groups.get(override.key_or_group, []))
    else:
        values = list(override.sweep_string_iterator())
    require(bool(values), f"{word} stands for no value; `fedagent run --help` lists the choices.")
    return [f"{key}={value}" for value in values[: 1 if override.is_range_sweep() else None]]
