"""What is measured on the model, once a round: by the server, by clients and by the rule."""

import logging
from collections.abc import Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedagent.callbacks import Callback
from fedagent.proxy.federated_evaluation import FederatedEvaluation
from fedagent.proxy.run_end import RunResult
from fedagent.proxy.server_evaluation import Moment, ServerEvaluation
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.statistics import Evaluation, Statistics
from fedagent.update import Dispatch, Kind

logger = logging.getLogger("flwr.fedagent")


class Evaluations:
    """Asks for evaluations, and files what comes in.

    Parameters
    ----------
    server : Flower's ``evaluate_fn`` beside the loop.
    clients : federated evaluation.
    versions : what is evaluated.
    config : for clients that evaluate.
    rule : for numbers about its state.
    statistics, result, callbacks : where metrics go.
    """

    KIND: ClassVar = Kind.EVALUATE
    UNSAVED: ClassVar = ("_callbacks",)

    def __init__(
        self,
        server: ServerEvaluation,
        clients: FederatedEvaluation,
        versions: Versions,
        config: ConfigRecord,
        rule: Rule,
        statistics: Statistics,
        result: RunResult,
        callbacks: Sequence[Callback],
    ) -> None:
        self._server, self._clients, self._rule = server, clients, rule
        self._versions, self._config = versions, config
        self._statistics, self._callbacks = statistics, callbacks
        self._asked_rule_at = -1
        self._by_source = {
            "server": result.evaluate_metrics_serverapp,
            "clients": result.evaluate_metrics_clientapp,
            "rule": result.train_metrics_clientapp,
        }

    @property
    def are_awaited(self) -> bool:
        """Whether clients are still evaluating."""
        return len(self._clients) > 0

    def evaluate(self) -> None:
        """Let the server evaluate after a round, and ask the rule for its numbers; once."""
        # A record of its own: whatever evaluate_fn does to it, the version stays as it is.
        self._server.submit(self._statistics, ArrayRecord(dict(self._versions.current.payload)))
        self.collect()
        if self._asked_rule_at != self._statistics.server_round:
            self._asked_rule_at = self._statistics.server_round
            if metrics := self._rule.metrics():
                self._record(Moment.of(self._statistics).evaluation("rule", metrics))

    def collect(self, wait: bool = False) -> None:
        """File what ``evaluate_fn`` has returned; `wait` for all of it."""
        for evaluation in self._server.finished(wait):
            self._record(evaluation)

    def ask_clients(self, is_over: bool = False) -> None:
        """Ask for a federated evaluation after the last round, if one is due."""
        self._clients.ask(self._versions.current.payload, self._config, is_over)

    def take(self, dispatch: Dispatch, reply: Message) -> None:
        """Take in a client's reply."""
        self._record(self._clients.take(dispatch, reply))

    def settle(self, dispatch: Dispatch) -> None:
        """Stop waiting for a client."""
        self._record(self._clients.settle(dispatch))

    def close(self) -> None:
        """Give back what ``evaluate_fn`` runs in."""
        self._server.close()

    def _record(self, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            return
        by_round = self._by_source[evaluation.source]
        known = dict(by_round.get(evaluation.server_round, MetricRecord()))
        by_round[evaluation.server_round] = MetricRecord({**known, **evaluation.metrics})
        self._statistics.evaluated(evaluation)
        logger.info(
            "Round %d, version %d, evaluated by the %s: %s",
            evaluation.server_round,
            evaluation.version,
            evaluation.source,
            {k: v for k, v in evaluation.metrics.items() if not isinstance(v, list)},
        )
        for callback in self._callbacks:
            callback.on_evaluation(self._statistics, evaluation)
