"""Which of a node's updates are on their way into the model, but not in it yet. Pure."""


class Unapplied:
    """Tokens of updates that no dispatched model holds, by node.

    An update is in no model while its job is in flight, and after it was received until the next
    version comes out. One that failed, was refused or expired will never be in any.
    """

    def __init__(self) -> None:
        self._in_flight: dict[int, dict[str, None]] = {}
        self._received: dict[int, list[tuple[str, int]]] = {}

    def sent(self, node_id: int, token: str) -> None:
        """Note a job that is handed out."""
        self._in_flight.setdefault(node_id, {})[token] = None

    def received(self, node_id: int, token: str, version: int) -> None:
        """Note that the rule has an update, `version` being the newest the node could be given."""
        self._received.setdefault(node_id, []).append((token, version))

    def settled(self, node_id: int, token: str) -> None:
        """Note the end of a job, whatever it was."""
        tokens = self._in_flight.get(node_id, {})
        tokens.pop(token, None)
        if not tokens:
            self._in_flight.pop(node_id, None)

    def tokens(self, node_id: int, newest: int) -> list[str]:
        """Return what version `newest` of the node's model does not hold, oldest first."""
        waiting = [(t, v) for t, v in self._received.pop(node_id, []) if v >= newest]
        if waiting:
            self._received[node_id] = waiting
        return [*(token for token, _ in waiting), *self._in_flight.get(node_id, {})]
