"""What nodes can decode, what they hold, and what a dispatch therefore carries."""

from dataclasses import dataclass
from typing import ClassVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message

from fedagent import keys
from fedagent._flower import record_of
from fedagent.model import FrozenVector, ModelSpec
from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Ledger, Version
from fedagent.rules.staleness import polynomial
from fedagent.update import Dispatch, Kind
from fedagent.wire.codec import Bytes
from fedagent.wire.codecs import codec_of
from fedagent.wire.coding import Coding
from fedagent.wire.moves import move, moved, whole_names
from fedagent.wire.npy import of_bytes, view_of
from fedagent.wire.packed import pack
from fedagent.wire.records import records_of, to_record, views_of


@dataclass(frozen=True, slots=True)
class Order:
    """What a train dispatch was given besides its job.

    Attributes
    ----------
    codec, seed : of its reply; see `Dispatch`.
    base : the model that its node holds by then, where that is no published one.
    """

    codec: str = ""
    seed: int = 0
    base: Version | None = None


class NodeCodecs:
    """Encodes what leaves for nodes that can decode it, and says how they may answer.

    A node's first dispatch is what any ClientApp knows, and an order besides, which only
    `codec_mod` heeds. Its reply says that it does, and from then on models come encoded.

    Parameters
    ----------
    coding : what is wanted; None for nothing.
    ledger : knows what nodes hold.
    jobs : knows what they are doing.
    """

    UNSAVED: ClassVar = ("_newest",)

    def __init__(self, coding: Coding | None, ledger: Ledger, jobs: Jobs) -> None:
        self._coding, self._ledger, self._jobs = coding, ledger, jobs
        self._can_decode: dict[int, None] = {}
        self._applied: dict[int, tuple[str, int]] = {}  # a node's last update: token, base version
        self._seed = 0
        self._newest: tuple[Version, ArrayRecord] | None = None

    def after_restore(self) -> None:
        """Pack anew what is sent: a checkpoint holds nothing twice."""
        self._newest = None

    # --- sending ------------------------------------------------------------------------------

    def prepare(
        self, message: Message, key: str, kind: Kind, token: str, base: Version | None
    ) -> Order:
        """Encode the model in a message that was built for a node, and add the order.

        Parameters
        ----------
        message : whose record `key` is left as it is if it is not the version it was built of: the
            user's strategy has made it, and knows why.
        token : of its job.
        base : the model that only this node gets, if it gets one.
        """
        coding, target = self._coding, base or self._ledger.current
        if coding is None or target is None or not _spec(target).arrays:
            return Order(base=base)
        if message.content.get(key) is not target.payload:
            return Order(base=base)
        node_id = message.metadata.dst_node_id
        if kind is Kind.EVALUATE:
            if self._gets_packed(node_id):
                message.content[key] = self._packed(target)
            return Order(base=base)
        self._seed += 2  # one for the reply, and the next for the difference that is sent
        seed = self._seed
        told = self._told(node_id, token, seed, _spec(target))
        start, record = None, cast(ArrayRecord, target.payload)
        if held := self._held(node_id):
            start, record = self._moved(coding, target, held[1], seed)
            told["held"] = held[0]
        elif self._gets_packed(node_id):
            record = self._packed(target)
        message.content[key] = record
        message.content[keys.CODEC] = told
        return Order(coding.up_text, seed, start or base)

    def again(self, dispatch: Dispatch, base: Version | None) -> Version | None:
        """Return the base of a dispatch that a log tells of, as `prepare` returned it."""
        self._seed = max(self._seed, dispatch.codec_seed)
        held, target = self._held(dispatch.node_id), base or self._ledger.current
        if self._coding is None or held is None or target is None or not dispatch.codec_seed:
            return base
        return self._moved(self._coding, target, held[1], dispatch.codec_seed)[0]

    # --- receiving ----------------------------------------------------------------------------

    def heard(self, reply: Message, dispatch: Dispatch) -> None:
        """Learn from the reply to a train dispatch in flight what its node can do, and holds."""
        if self._coding is None:
            return
        node_id = dispatch.node_id
        if reply.has_error():
            self._ledger.release_held(node_id)
        elif keys.CODEC in records_of(reply.content, ConfigRecord):
            self._can_decode[node_id] = None
            if self._coding.moves_models and dispatch.codec_seed:
                base = self._ledger.base(dispatch)
                self._ledger.hold(node_id, dispatch.token, base, self._coding.held_nodes)

    def applied(self, dispatch: Dispatch) -> None:
        """Note that a node's update was applied: what it left out joins the next one."""
        if self._coding is not None and self._coding.has_feedback:
            self._applied[dispatch.node_id] = dispatch.token, dispatch.version

    def forget(self) -> None:
        """Forget all nodes: they are those of another Flower run now, without a memory."""
        for node_id in self._can_decode:
            self._ledger.release_held(node_id)
        self._can_decode, self._applied = {}, {}

    # --- one order ------------------------------------------------------------------------------

    def _told(self, node_id: int, token: str, seed: int, spec: ModelSpec) -> ConfigRecord:
        assert self._coding is not None
        last, version = self._applied.get(node_id, ("", 0))
        others = [t for t in self._jobs.tokens(node_id) if t != token]
        told = ConfigRecord({"seed": seed, "token": token, "tokens": [last, *others]})
        if names := whole_names(spec):
            told["whole"] = names
        if self._coding.up_text:
            told["up"] = self._coding.up_text
        if self._coding.has_feedback:
            assert self._ledger.current is not None
            age = max(0, self._ledger.current.number - version)
            told["feedback"] = polynomial(age) if self._coding.feedback == "decayed" else 1.0
        if self._coding.moves_models:
            told["down"] = str(self._coding.down)
        return told

    def _gets_packed(self, node_id: int) -> bool:
        return (
            self._coding is not None
            and self._coding.down is not None
            and (node_id in self._can_decode)
        )

    def _packed(self, version: Version) -> ArrayRecord:
        """Return a version as one array; that of the newest, which many nodes get, is kept."""
        if self._newest is None or self._newest[0] is not version:
            packed = pack(version.payload)
            if version is not self._ledger.current:
                return packed
            self._newest = version, packed
        return self._newest[1]

    def _held(self, node_id: int) -> tuple[str, Version] | None:
        return self._ledger.held(node_id) if self._coding and self._coding.moves_models else None

    def _moved(
        self, coding: Coding, target: Version, held: Version, seed: int
    ) -> tuple[Version, ArrayRecord]:
        """Return what a node holds when it has added a difference, and that difference."""
        spec, codec = _spec(target), codec_of(str(coding.down))
        sent = of_bytes(move(codec, spec, target.vector, held.vector, seed + 1))
        carried = {s.name: target.payload[s.name] for s in spec.arrays if not s.is_averaged}
        arrays = moved(codec, spec, held.vector, cast(Bytes, view_of(sent)), seed + 1)
        whole = arrays | {name: view_of(array) for name, array in carried.items()}
        payload = to_record({s.name: whole[s.name] for s in spec.arrays})
        vector = FrozenVector(spec, views_of(payload))
        record = record_of(ArrayRecord, {keys.ENCODED: sent, **carried})
        return Version(target.number, vector, payload, dict(target.carried)), record


def _spec(version: Version) -> ModelSpec:
    return cast(FrozenVector, version.vector).spec
