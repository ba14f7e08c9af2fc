"""Asynchronous Flower strategies: one-line replacements for ``FedAvg(...)``."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedagent import rules
from fedagent.errors import check_type, require
from fedagent.proxy.loop import Proxy
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.run_end import RunResult
from fedagent.proxy.run_request import RunRequest
from fedagent.scheduling import AutoConcurrency
from fedagent.wire.records import metrics_of

logger = logging.getLogger("flwr.fedagent")


class AsyncStrategy(Strategy):
    """A Flower strategy that waits for nobody.

    Use it wherever Flower takes a strategy. A round is as many updates as Flower's cohort has
    nodes, whoever sends them and whatever versions they make. A subclass may
    override Flower's hooks: `configure_train` is called whenever slots are free, `aggregate_train`
    for every reply, `configure_evaluate` and `aggregate_evaluate` once a round.

    Parameters
    ----------
    rule : what an update does to the model.
    options : the fields of `AsyncOptions`, such as ``concurrency=20`` or ``fraction_train=0.2``.

    Raises
    ------
    ConfigurationError
        If an option cannot work.
    TypeError
        If an option does not exist.
    """

    def __init__(self, rule: rules.Rule, **options: Any) -> None:
        check_type("rule", rule, rules.Rule, _way_to_a_rule(rule))
        self.options = AsyncOptions(**options)
        if self.options.concurrency == "auto":
            found = AutoConcurrency(rule.typical_staleness)
            self.options = replace(self.options, concurrency=found)
        self.rule = _timed(_secured(self.options.robust.around(rule), self.options), self.options)
        self._stateful: list[Any] = [self.rule, self.options.scheduler, self.options.robust]
        self._fresh = [each.state_dict() for each in self._stateful]
        self._proxy: Proxy | None = None

    @property
    def proxy(self) -> Proxy:
        """The run under way, or the last one.

        Its `statistics` are the numbers of the run: time, updates, versions, staleness, bytes and
        how every dispatch ended.
        """
        if self._proxy is None:
            raise RuntimeError(
                f"{type(self).__name__} has not been started: call start() first. Its "
                "hooks work inside start(), not in a loop of your own."
            )
        return self._proxy

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for every job the scheduler assigns to a free slot."""
        config["server-round"] = server_round
        return self.proxy.train_messages(arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take replies in; return the round's newest model and metrics if they completed one.

        The model is None, and the metrics are not, if no version came out in the round.
        """
        newest: tuple[ArrayRecord | None, MetricRecord | None] = None, None
        for reply in replies:
            received = self.proxy.receive(reply)
            newest = newest if received[1] is None else received
        return newest

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return messages for a sample of the nodes, first of those that training left idle."""
        config["server-round"] = server_round
        return self.proxy.evaluate_messages(arrays, config)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate the metrics of one round's federated evaluation."""
        found = [metrics_of(r.content, self.options.weighted_by_key) for r in replies]
        records = [record for record in found if record is not None]
        return self.options.aggregate(records, is_train=False) if records else None

    def summary(self) -> None:
        """Log the configuration."""
        options = self.options
        width = options.concurrency or f"{options.fraction_train:.0%} of the nodes"
        logger.info("\t├──> Rule: %s", type(self.rule).__name__)
        logger.info(
            "\t├──> Scheduler: %s | concurrency: %s", type(options.scheduler).__name__, width
        )
        logger.info(
            "\t└──> Keys in records: weighted by '%s' | arrays '%s' | config '%s'",
            options.weighted_by_key,
            options.arrayrecord_key,
            options.configrecord_key,
        )

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        should_stop: Callable[[int, Result], bool] | None = None,
    ) -> RunResult:
        """Train asynchronously until a stopping condition holds.

        Parameters
        ----------
        grid : any Flower grid; one that brings a ``clock`` is timed by it.
        initial_arrays : version 0; its names, shapes and dtypes are what clients must return.
        num_rounds : rounds after which the run ends, each of a cohort's updates. 0 is the initial
            model.
        timeout : clock seconds a node may take to answer, unless `AsyncOptions.deadline_s` is set;
            also how long the run goes on without a reply from anybody. After half of that it warns.
        train_config, evaluate_config : sent to the nodes; ``server-round`` is added.
        evaluate_fn : (server_round, arrays) -> metrics, see `AsyncOptions.evaluate_every`.
        should_stop : (server_round, result so far) -> whether the run ends, asked after every
            round; what Flower has since 1.43.

        Returns
        -------
        Flower's ``Result``, its dictionaries indexed by round, with `end`: why the run ended. A
        last round that another condition cut short is there if a version came out in it. What
        else the run did is in ``proxy.statistics``.

        Raises
        ------
        ConfigurationError
            If an argument is not what it should be, or the model cannot be trained.
        """
        request = RunRequest(
            initial_arrays,
            num_rounds,
            timeout,
            ConfigRecord() if train_config is None else train_config,
            ConfigRecord() if evaluate_config is None else evaluate_config,
            evaluate_fn,
            should_stop,
        )
        logger.info("Starting %s strategy:", type(self).__name__)
        self.summary()
        for each, state in zip(self._stateful, self._fresh, strict=True):
            each.load_state_dict(state)  # an earlier run's leftovers are not ours
        self._proxy = Proxy(self, self.rule, self.options, grid, request)
        return self._proxy.run()


def _way_to_a_rule(given: object) -> str:
    """Return what to do with what is no rule."""
    if isinstance(given, AsyncStrategy):
        return "it is asynchronous already, call its start()"
    name = getattr(given, "__name__", type(given).__name__)
    if isinstance(given, Strategy):
        return f"a strategy of Flower's is wrapped, asynchronous({name}(...))"
    return "take one from fedagent.rules, such as fedagent.rules.FedBuff()"


def _secured(rule: rules.Rule, options: AsyncOptions) -> rules.Rule:
    """Return the rule as it works with sums of updates, if it shall see no others."""
    if options.secure is None:
        return rule
    return options.secure.around(rule, options.robust, options.coding(in_simulation=False))


def _timed(rule: rules.Rule, options: AsyncOptions) -> rules.Rule:
    """Return the rule as the options want it published, if they and it go together."""
    name, period_s = type(rule).__name__, options.publish_every_s
    for part in (rule, options.scheduler):
        require(
            part.allows_prefetch or options.max_prefetch == 0,
            f"{type(part).__name__} needs one job at a time per node, so "
            f"prefetch={options.max_prefetch} cannot work: set prefetch=0, or take another.",
        )
    require(
        period_s is not None or not rule.needs_clock,
        f"{name}: buffer_size=None never publishes by itself; set publish_every_s too.",
    )
    require(
        options.scheduler.forms_groups or not rule.needs_groups,
        f"{name} aggregates by groups of nodes, and {type(options.scheduler).__name__} forms none: "
        "set scheduler=tiers.",
    )
    return rule if period_s is None else rules.Periodic(rule, period_s)
