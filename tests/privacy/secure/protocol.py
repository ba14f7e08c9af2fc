"""One secure sum between members and a gathering, without a network."""

from collections.abc import Callable, Collection

import numpy as np

from fedagent.privacy.secure import Gathering, Member, Question, Stage, SumEnd

Relay = Callable[[Question, Member], Question]
Say = Callable[[Stage, int, dict], dict]


class Talk:
    """Members 100, 101, ... who vanish where they are told to, and all that the proxy hears.

    Parameters
    ----------
    changes : (K, P) updates.
    vanish : by stage, the places of members that do not answer in it any more.
    say : what a member sends in place of an honest answer.
    """

    def __init__(
        self,
        changes: np.ndarray,
        vanish: dict[Stage, Collection[int]] | None = None,
        threshold: int | None = None,
        limit: float = 4.0,
        say: Say = lambda stage, place, answer: answer,
    ) -> None:
        self.members = [Member(change.astype(np.float32)) for change in changes]
        keys = {100 + i: m.public_keys.tobytes() for i, m in enumerate(self.members)}
        number = len(changes)
        threshold = threshold or 2 * number // 3 + 1
        self.gathering = Gathering(keys, threshold, limit, changes.shape[1])
        self._vanish, self._say = vanish or {}, say
        self.heard: dict[Stage, dict[int, dict]] = {}

    def run(self) -> SumEnd:
        gathering, gone = self.gathering, set()
        while gathering.outcome is None:
            gone |= set(self._vanish.get(gathering.stage, ()))
            heard = self.heard.setdefault(gathering.stage, {})
            for node_id in list(gathering.awaited):
                place = node_id - 100
                if place in gone:
                    gathering.lose(node_id)
                    continue
                answer = self.members[place].answer(gathering.question(node_id))
                heard[place] = self._say(gathering.stage, place, answer)
                gathering.answer(node_id, heard[place])
            gathering.advance()
        return gathering.outcome


def changes_of(number: int, num_params: int, seed: int = 0) -> np.ndarray:
    """Return (K, P) updates that fixed point holds exactly: multiples of 2^-10."""
    draws = np.random.default_rng(seed).integers(-2048, 2049, (number, num_params))
    return draws / 1024
