"""An attacker that works on an old model and sends the result as if it were of the newest one."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, cast

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent.client.attacks.attack import Attack
from fedagent.client.request import model_in
from fedagent.errors import Interval

_KEPT, _COUNT = "stale-lie-model", "stale-lie"


@dataclass(frozen=True)
class StaleLie(Attack):
    """Train the model of an earlier job, and say that it was this one's.

    What a client says of its base version is never used, so the ledger takes the step from the
    new model to the trained old one for the work of this job: it pulls the model back.

    Parameters
    ----------
    attackers : see `Attack`.
    refresh_every : jobs after which the newest model is kept instead, >= 1.
    """

    _: KW_ONLY
    refresh_every: Annotated[int, Interval("[1, inf)")] = 20

    def lie(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the reply of a node that has slept; the node's state remembers the old model."""
        name, record = model_in(message)
        known = context.state.config_records.get(_COUNT, ConfigRecord({"jobs": 0}))
        count = cast(int, known["jobs"])
        if count % self.refresh_every == 0:
            context.state[_KEPT] = record.copy()
        context.state[_COUNT] = ConfigRecord({"jobs": count + 1})
        message.content[name] = context.state.array_records[_KEPT].copy()
        return call_next(message, context)
