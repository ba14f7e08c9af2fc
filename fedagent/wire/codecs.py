"""Codecs by their words: ``"int4"``, ``"topk:0.05+int8"``, ``"powersgd:4+half"``.

================= ===============================================================================
``packed``        numbers as they are
``half``          float16; ``bfloat16``
``int8``          8 bits per number and unbiased; ``int4``, ``int2``
``topk:SHARE``    the largest numbers of every block; ``randk:SHARE``, some at random
``powersgd:RANK`` matrices as products of two narrow ones
================= ===============================================================================
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from fedagent.errors import ConfigurationError, one_of
from fedagent.wire.codec import Codec
from fedagent.wire.half import Half
from fedagent.wire.low_rank import LowRank
from fedagent.wire.packed import Packed
from fedagent.wire.quantised import Quantised
from fedagent.wire.sparse import RandomK, TopK

_VALUES: dict[str, Codec] = {
    "packed": Packed(),
    "half": Half("half"),
    "bfloat16": Half("bfloat16"),
    "int8": Quantised(8),
    "int4": Quantised(4),
    "int2": Quantised(2),
}
_AROUND: dict[str, Callable[[str, Codec], Codec]] = {
    "topk": lambda share, values: TopK(float(share), values),
    "randk": lambda share, values: RandomK(float(share), values),
    "powersgd": lambda rank, values: LowRank(int(rank), values),
}


@lru_cache
def codec_of(text: str) -> Codec:
    """Return the codec that words with + between them describe, in whatever order.

    Raises
    ------
    ConfigurationError
        If a word is unknown, has a number that does not fit, or excludes another.
    """
    words = [word.strip().partition(":") for word in text.split("+")]
    names = [name for name, _, _ in words]
    for name in names:
        one_of("codec", name, (*_VALUES, *_AROUND))
    values = [name for name in names if name in _VALUES]
    if len(values) > 1 or len(words) - len(values) > 1:
        raise ConfigurationError(
            f"codec={text!r}: take one of {', '.join(_VALUES)}, and around it one of "
            f"{', '.join(_AROUND)}."
        )
    codec = _VALUES[values[0]] if values else Packed()
    numbers = {name: number for name, _, number in words}
    for name, build in _AROUND.items():
        if name in numbers:
            try:
                codec = build(numbers[name], codec)
            except ValueError as error:
                if isinstance(error, ConfigurationError):
                    raise
                raise ConfigurationError(
                    f"codec={text!r}: {name} needs a number behind a colon, such as "
                    f"{name}:{'4' if name == 'powersgd' else '0.05'}."
                ) from error
    return codec


def text_of(codec: str | Sequence[str]) -> str:
    """Return the words of a codec in one text, which is known to describe one."""
    text = codec if isinstance(codec, str) else "+".join(codec)
    codec_of(text)
    return text
