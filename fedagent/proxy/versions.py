"""The model of a run, and every version of it that is alive."""

from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from flwr.app import ArrayRecord

from fedagent.arrays import Carry, NDArray
from fedagent.model import FlatModel, FrozenVector, ModelSpec
from fedagent.proxy.ledger import Ledger, Version
from fedagent.rules import Rule
from fedagent.rules.opaque import OpaqueModel
from fedagent.wire.records import from_record, to_record, views_of


class Versions:
    """Makes versions of what the rule has made of the model.

    Parameters
    ----------
    initial : version 0.
    rule : which may keep further models, for some nodes each.
    ledger : where versions are published.
    carried : policies by name pattern; see `fedagent.arrays`.

    Attributes
    ----------
    model : the published model, which the rule moves.
    rule : what moves it.
    """

    UNSAVED: ClassVar = ("_own",)

    def __init__(
        self, initial: ArrayRecord, rule: Rule, ledger: Ledger, carried: Mapping[str, Carry]
    ) -> None:
        arrays = from_record(initial)
        self.model = (
            OpaqueModel(arrays)
            if rule.is_opaque
            else FlatModel(ModelSpec.of(arrays, carried), arrays)
        )
        self.rule, self._ledger = rule, ledger
        self._own: WeakValueDictionary[Any, Version] = WeakValueDictionary()

    def after_restore(self) -> None:
        """Let every version be what its bytes are: a checkpoint holds nothing twice."""
        for version in self._ledger.bases():
            version.vector, version.source = self._frozen(version.payload), None

    @property
    def current(self) -> Version:
        """The newest version."""
        assert self._ledger.current is not None
        return self._ledger.current

    def publish(self) -> None:
        """Publish the model as it is."""
        self._ledger.publish(self._version(self.model.version, self.model.arrays()))

    def publish_next(self) -> None:
        """Publish the model as the next version."""
        self.model.version += 1
        self.publish()

    def number_for(self, node_id: int) -> int:
        """Return the number of the newest version that a node could be given."""
        number = self.rule.version_for(node_id)
        return self.model.version if number is None else number

    def own(self, node_id: int) -> Version | None:
        """Return the model that the rule keeps for a node, if it keeps one.

        Nodes that share one share the version, as long as something in flight started from it.
        """
        vector = self.rule.model_for(node_id)
        if vector is None:
            return None
        number, carried = self.number_for(node_id), self.model.carried
        # What an entry is made of lives as long as the entry, so an address means one thing.
        key = number, vector.data_ptr(), vector._version, *map(id, carried.values())
        version = self._own.get(key)
        if version is None:
            version = self._version(number, self.model.spec.unflatten(vector, carried))
            version.source = vector
            self._own[key] = version
        return version

    def _version(self, number: int, arrays: dict[str, NDArray]) -> Version:
        """Return a version that holds a model once: as the bytes that are sent."""
        payload = to_record(arrays)
        return Version(number, self._frozen(payload), payload, dict(self.model.carried))

    def _frozen(self, payload: ArrayRecord) -> FrozenVector:
        return FrozenVector(self.model.spec, views_of(payload))
