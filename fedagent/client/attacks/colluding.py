r"""Attacks of nodes that know each other: they share their data, and look like one of many.

Every attacker trains on the data of several of them from the model that it was sent, which is what
honest nodes would have done there. Shape legend: m colluders, Delta_j what training on the data of
colluder j changed, mu and sigma the mean and the deviation over them, number by number.

    LittleIsEnough   mu - z sigma    Baruch, Baruch, Goldberg, "A Little Is Enough",
                                     arXiv 1902.06635: inside the spread of honest steps
    InnerProduct     -eps mu         Xie, Koyejo, Gupta, "Fall of Empires", arXiv 1903.03936:
                                     short, so that no distance tells it from an honest step

The papers' attackers know the honest steps of the same round; here they have their own data, as
arXiv 1902.06635 says is enough. An attacker's job costs m trainings.
"""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.client.attacks.attack import Attack, moved_by
from fedagent.client.attacks.changes import Scale
from fedagent.client.mods.differences import changes_of
from fedagent.client.request import model_in, partition_of
from fedagent.errors import Interval
from fedagent.wire.records import from_record, to_record


@dataclass(frozen=True)
class _Colluding(Attack):
    """What the two share.

    Parameters
    ----------
    attackers : see `Attack`.
    colluders : m, how many pool their data at most, >= 2.
    """

    _: KW_ONLY
    colluders: Annotated[int, Interval("[2, inf)")] = 4

    def lie(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the honest reply with the step that the colluders agree on."""
        asked, sent = model_in(message)
        dispatched = from_record(sent)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        name, record = model_in(reply)
        trained = from_record(record)
        steps = [changes_of(dispatched, trained)]
        for partition in self._others(partition_of(context)):
            message.content[asked] = to_record(dispatched)  # an app may empty its own
            answer = call_next(message, _as_if(context, partition))
            if not answer.has_error():
                steps.append(changes_of(dispatched, from_record(model_in(answer)[1])))
        agreed = {}
        for array in steps[0]:
            changes = np.stack([step[array] for step in steps])
            agreed[array] = self.agreed(changes.mean(0), changes.std(0))
        reply.content[name] = to_record(trained | moved_by(dispatched, agreed))
        return reply

    def _others(self, own: int) -> list[int]:
        others = sorted(self.attackers.partitions - {own})
        later = [partition for partition in others if partition > own]
        return (later + others)[: min(self.colluders - 1, len(others))]  # the next ones, in a ring

    @abstractmethod
    def agreed(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return the step of one array from mu and sigma."""


@dataclass(frozen=True)
class LittleIsEnough(_Colluding):
    """Send mu - z sigma.

    Parameters
    ----------
    attackers, colluders : as described above.
    z : > 0; the paper's choice grows with the number of nodes and is about 1 for 50 of them.
    """

    _: KW_ONLY
    z: Scale = 1.5

    def agreed(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return mu - z sigma."""
        return mean - self.z * deviation


@dataclass(frozen=True)
class InnerProduct(_Colluding):
    """Send -eps mu.

    Parameters
    ----------
    attackers, colluders : as described above.
    eps : > 0; above (1 - q) / q for a share q of attackers the mean step points backwards.
    """

    _: KW_ONLY
    eps: Scale = 0.5

    def agreed(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return -eps mu."""
        return -self.eps * mean


def _as_if(context: Context, partition: int) -> Context:
    """Return the context of the node that holds another partition, without its memory."""
    config = {**context.node_config, keys.PARTITION_ID: partition}
    return Context(context.run_id, context.node_id, config, RecordDict(), context.run_config)
