"""What a conformance case is, and the staleness weights that cases share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fedagent.rules import Rule, staleness
from fedagent.rules.staleness import Staleness
from tests.conformance import oracle
from tests.conformance.oracle import Formula, Oracle


@dataclass(frozen=True)
class Case:
    """One configured rule and its independent twin.

    Attributes
    ----------
    family : which rule it configures.
    settings : how; family and settings make the test id.
    rule, oracle : build a fresh one.
    buffer_size : updates per published version; None if that is not fixed for this rule.
    scripted_bases : False for a rule that publishes too rarely for the script's base versions: its
        nodes start from the newest version.
    scale : of the deltas in wild histories; below 1 for a rule whose rounding errors grow with
        their square.
    is_stable : False where a rounding error may become a step of full size, as when the direction
        of a vector matters that should be 0; only scripted histories are compared then.
    """

    family: str
    settings: str
    rule: Callable[[], Rule]
    oracle: Callable[[], Oracle]
    buffer_size: int | None
    scripted_bases: bool = True
    scale: float = 1.0
    is_stable: bool = True

    @property
    def name(self) -> str:
        """Test id."""
        return f"{self.family}-{self.settings}"


WEIGHTS: dict[str, tuple[Callable[[], Staleness], Formula]] = {
    "constant": (lambda: staleness.constant, oracle.constant),
    "polynomial": (lambda: staleness.polynomial, oracle.polynomial(a=0.5)),
    "polynomial-a2": (lambda: partial(staleness.polynomial, a=2.0), oracle.polynomial(a=2.0)),
    "hinge": (lambda: staleness.hinge, oracle.hinge(a=10, b=4)),
    "hinge-a.5-b1": (lambda: partial(staleness.hinge, a=0.5, b=1.0), oracle.hinge(a=0.5, b=1)),
    "exponential": (lambda: staleness.exponential, oracle.exponential(beta=0.1)),
    "product": (
        lambda: staleness.product(staleness.polynomial, staleness.exponential),
        lambda tau: oracle.polynomial(0.5)(tau) * oracle.exponential(0.1)(tau),
    ),
}
