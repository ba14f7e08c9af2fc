"""How a dispatch ends, as those who hand out work see it."""

from dataclasses import dataclass

from fedagent.callbacks import Settlement
from fedagent.scheduling import Observation
from fedagent.update import Dispatch, Outcome, Rejection


@dataclass(frozen=True, slots=True)
class Ending:
    """How a dispatch ends.

    Attributes
    ----------
    outcome, reason, detail, blames_node : as of a `Rejection`; no reason where it was applied, and
        a detail only if the update counts nothing.
    received_bytes : serialised model bytes of the reply.
    observation : what a scheduler learns from the job; None if it came to nothing.
    discount : s(tau) of the rule for an update that it takes; None for all others.
    weight : that of such an update beside others; see `fedagent.rules.Rule.influence`.
    """

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    blames_node: bool = True
    received_bytes: int = 0
    observation: Observation | None = None
    discount: float | None = None
    weight: float = 0.0

    @classmethod
    def by(
        cls, rejection: Rejection, received_bytes: int = 0, observation: Observation | None = None
    ) -> "Ending":
        """Return the end that a rejection makes."""
        said = rejection.outcome, rejection.reason, rejection.detail, rejection.blames_node
        return cls(*said, received_bytes, observation)

    @property
    def succeeded(self) -> bool:
        """Whether the node did what it was asked to do, whatever became of its update."""
        return self.outcome is Outcome.APPLIED or not self.blames_node

    def settlement(self, dispatch: Dispatch, duration_s: float) -> Settlement:
        """Return what callbacks hear of it."""
        update = self.observation if self.outcome is Outcome.APPLIED else None
        return Settlement(
            dispatch,
            self.outcome,
            self.reason,
            self.detail,
            duration_s,
            staleness=update.staleness if update else None,
            bytes_up=self.received_bytes,
            num_examples=update.num_examples if update else None,
            discount=self.discount,
        )


DROPPED = Ending(
    Outcome.REJECTED,
    "dropped-by-strategy",
    "an override of aggregate_train did not pass it on",
    blames_node=False,
)

INTERRUPTED = Ending(
    Outcome.EXPIRED,
    "interrupted",
    "the server's process ended while it was in flight",
    blames_node=False,
)
"""How what was in flight ends when a run on a real fleet goes on in another process."""
