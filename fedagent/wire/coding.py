"""What a run encodes, in which direction, and what becomes of what is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from fedagent.errors import one_of, require
from fedagent.wire.codec import Codec
from fedagent.wire.codecs import codec_of, text_of

Feedback = Literal["auto", "kept", "decayed", "none"]


@dataclass(frozen=True)
class Coding:
    r"""Which codecs a run uses with nodes that have `fedagent.client.mods.codec_mod`.

    Every other node gets and sends what it knows. What a codec leaves out of an update is kept at
    the node and joins its next one, e' = (e + Delta) - C(e + Delta):

    ========= ==================================================================================
    `auto`    `kept` with topk, randk and powersgd; `none` with codecs that are right on average
    `kept`    as it is, however old: the rate of no compression, up to a term of higher order
              (arXiv 2504.19903)
    `decayed` times (1 + age)^-1/2, its age in versions since its update was computed (a weight
              below 1 is that of arXiv 1806.08054)
    `none`    not at all
    ========= ==================================================================================

    Of an update that was refused or lost both go: Delta, and what it left; e is there again. So a
    node keeps two residuals, of 2 bytes per parameter each (bfloat16): in its Context, or in the
    folder of ``fedagent node``.

    Parameters
    ----------
    up : of updates: words of `fedagent.wire.codecs` in a text, a list, or a mapping whose values
        they are; None for whole models, array by array.
    down : of models. None: array by array; ``packed``: one array; another codec: as QAFeL does
        (arXiv 2308.00263), the difference to what the node holds, encoded, which both ends add.
    feedback : see above.
    held_nodes : nodes of which the proxy remembers what they hold, >= 1, a model each at most; the
        one that was asked longest ago is forgotten, and gets a whole model next time.
    in_simulation : whether simulated nodes are meant too, whose messages cost no requests.
    """

    up: str | Sequence[str] | Mapping[str, str] | None = "packed"
    down: str | None = "packed"
    feedback: Feedback = "auto"
    held_nodes: int = 100
    in_simulation: bool = True

    def __post_init__(self) -> None:
        one_of("feedback", self.feedback, get_args(Feedback))
        require(self.held_nodes >= 1, f"held_nodes={self.held_nodes} must be at least 1.")
        require(
            not self.has_feedback or self.codec.is_contraction,
            f"codec={self.up_text}: with 2 bits the error is larger than the update, and feedback "
            "would grow without end. Set feedback=none.",
        )
        require(
            self.down is None or codec_of(self.down).is_contraction,
            f"down={self.down}: with 2 bits the error is larger than the difference, and what the "
            "node holds would move away from the model. Take int4.",
        )
        require(
            self.down is None or codec_of(self.down).is_exact,
            f"down={self.down}: proxy and node must hold the same bits, and powersgd's products "
            "differ between machines. Take another codec.",
        )

    @cached_property
    def up_text(self) -> str:
        """The words of `up` in one text; empty for none."""
        if self.up is None:
            return ""
        return text_of(list(self.up.values()) if isinstance(self.up, Mapping) else self.up)

    @property
    def codec(self) -> Codec:
        """What encodes updates."""
        return codec_of(self.up_text or "packed")

    @property
    def has_feedback(self) -> bool:
        """Whether nodes keep what was left out."""
        if self.feedback == "auto":
            return self.codec.needs_feedback
        return self.feedback != "none" and self.up_text not in ("", "packed")

    @property
    def moves_models(self) -> bool:
        """Whether differences to what nodes hold are sent to them."""
        return self.down not in (None, "packed")

    @property
    def is_any(self) -> bool:
        """Whether anything is encoded."""
        return self.up is not None or self.down is not None
