"""Flower's rounds where nobody waits: so many updates as a cohort has nodes, whoever sends them.

A round begins with the size of its cohort, and is complete when the rule has received as many
updates. So `num_rounds` asks for the same training
under every rule. Versions come out whenever the rule says, and staleness counts those.
"""

import logging
from collections.abc import Callable

from flwr.app import ConfigRecord, MetricRecord

from fedagent.errors import require
from fedagent.rules import Rule
from fedagent.statistics import Statistics

logger = logging.getLogger("flwr.fedagent")


class Rounds:
    """The round under way.

    Parameters
    ----------
    rule : what is told how many updates a round has.
    statistics : where complete rounds are counted, and how many nodes a cohort has.
    aggregate : what makes one record of what a round's clients have measured.
    filed : such records by round.

    Attributes
    ----------
    num_updates : updates that the round under way asks for, >= 1; 0 before the first one.
    """

    def __init__(
        self,
        rule: Rule,
        statistics: Statistics,
        aggregate: Callable[[list[MetricRecord]], MetricRecord],
        filed: dict[int, MetricRecord],
    ) -> None:
        self._rule, self._statistics = rule, statistics
        self._aggregate, self._filed = aggregate, filed
        self.num_updates = 0
        self._metrics: list[MetricRecord] = []
        self._version = 0

    def begin(self) -> None:
        """Begin a round of as many updates as a cohort has nodes now."""
        self.num_updates = max(1, self._statistics.cohort)
        self._version = self._statistics.version
        self._rule.begin_round(self.num_updates)
        self._require_nodes()

    def _require_nodes(self) -> None:
        """Refuse, or later on warn of, a version of more nodes' updates than there are nodes."""
        size, num_nodes = self._rule.updates_per_version, self._statistics.num_nodes
        if not self._rule.is_one_per_node or size is None or size <= num_nodes:
            return
        problem = (
            f"A version takes one update each of {size} nodes, and {num_nodes} are connected: "
            f"none comes out before there are more. Set buffer_size to {num_nodes} or less, or "
            f"min_available_nodes={size} to wait for them."
        )
        require(self.current > 1, problem)
        logger.warning("%s", problem)

    def __str__(self) -> str:
        """Return "rounds of 20 updates", how many nodes train at once, and what makes a version."""
        num_updates, statistics = self._rule.updates_per_version, self._statistics
        made = (
            f"every {num_updates} updates"
            if num_updates
            else f"as {type(self._rule).__name__} says"
        )
        return (
            f"rounds of {self.num_updates} updates, {statistics.concurrency} of "
            f"{statistics.num_nodes} nodes at work at once, a new version {made}"
        )

    def add(self, metrics: MetricRecord) -> None:
        """Count an update, and keep what its client has measured."""
        self._metrics.append(metrics)

    @property
    def current(self) -> int:
        """The number of the round under way; the first is 1."""
        return self._statistics.server_round + 1

    @property
    def is_complete(self) -> bool:
        """Whether the round under way has all of its updates."""
        return len(self._metrics) >= self.num_updates > 0

    @property
    def has_versions(self) -> bool:
        """Whether a version has come out in the round under way."""
        return self._statistics.version > self._version

    def close(self) -> MetricRecord:
        """Count the round under way as the last one; file its clients' metrics and return them."""
        self._statistics.server_round += 1
        measured, self._metrics = self._metrics, []
        number = self._statistics.server_round
        metrics = self._filed[number] = self._aggregate(measured)
        logger.info("Round %d, version %d: %s", number, self._statistics.version, metrics)
        return metrics


class RoundConfig:
    """The configuration that ``configure_train`` is given.

    Flower calls it once per round with one configuration that lives on, and users decay learning
    rates in it. Here it is called many times in a round: every call starts from what the previous
    round left.

    Parameters
    ----------
    config : that of the first round.
    """

    def __init__(self, config: ConfigRecord) -> None:
        self._before = self._now = config
        self._round = 0

    def of(self, number: int) -> ConfigRecord:
        """Return the configuration for a call in round `number`, for the user to change."""
        if number != self._round:
            self._round, self._before = number, self._now
        self._now = self._before.copy()
        return self._now
