"""What a run does against a proxy that is curious: one group of options, as `Robust` is another.

FedBuff(buffer_size=20, staleness=constant, secure=SecureAggregation())
"""

import math
from dataclasses import dataclass

from fedagent.errors import require
from fedagent.privacy.secure import SecureSums
from fedagent.proxy.robust import Robust
from fedagent.rules import Rule
from fedagent.wire.coding import Coding


@dataclass(frozen=True)
class SecureAggregation:
    """Sums of buffers under masks: the proxy learns what K nodes changed together, and no more.

    Parameters
    ----------
    threshold : share, in [1/2, 1), of a buffer's nodes; more than that must be left until its sum
        is done, and so many would have to conspire with the proxy to see an update.
    limit : R > 0, the largest change of a parameter that counts in full: a node cuts what is
        beyond. Whatever nodes send, no parameter of a buffer's mean is beyond 2 R.
    deadline_s : clock seconds that a node may take for each of the three answers after its job,
        > 0; None for as long as for a job.

    Raises
    ------
    ConfigurationError
        If a value cannot work.
    """

    threshold: float = 2 / 3
    limit: float = 4.0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        require(
            0.5 <= self.threshold < 1.0,
            f"SecureAggregation: threshold={self.threshold} must lie in [0.5, 1): with half of the "
            "nodes or fewer, two halves could be asked for what must not be told together.",
        )
        require(
            0.0 < self.limit < math.inf, f"SecureAggregation: limit={self.limit} must be positive."
        )
        require(
            self.deadline_s is None or self.deadline_s > 0,
            f"SecureAggregation: deadline_s={self.deadline_s} must be positive.",
        )

    def members_needed(self, number: int) -> int:
        """Return t, of so many members."""
        return math.floor(self.threshold * number) + 1

    def around(self, rule: Rule, robust: Robust, coding: Coding | None) -> Rule:
        """Return the rule as it works with sums.

        Raises
        ------
        ConfigurationError
            If it, or another option, needs single updates: the message says which.
        """
        for is_asked, name in (
            (bool(robust.gate.filters), "filters look"),
            (robust.combining is not None, f"{type(robust.combining).__name__} looks"),
            (robust.kept_per_node is not None, "per_node looks"),
        ):
            require(
                not is_asked,
                f"secure: {name} at single updates, and nobody sees any. Leave it out.",
            )
        codec = "" if coding is None else coding.up_text
        require(
            codec in ("", "packed"),
            f"secure: an update under a mask is as large as the model, so codec={codec} cannot "
            "make it smaller: take codec=auto.",
        )
        return SecureSums(rule)
