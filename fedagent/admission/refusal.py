"""What ends the reading of a reply that may not touch the model."""

from fedagent.formatting import printable
from fedagent.update import Outcome, Rejection


class RefusedError(Exception):
    """A reply is refused; `rejection` is what the gate returns.

    Parameters
    ----------
    outcome, reason, detail : of the `Rejection`.
    """

    def __init__(self, outcome: Outcome, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(outcome, reason, printable(detail))  # a client's words, too


def refuse_unless(condition: bool, reason: str, detail: str) -> None:
    """Raise RefusedError unless `condition` holds."""
    if not condition:
        raise RefusedError(Outcome.REJECTED, reason, detail)
