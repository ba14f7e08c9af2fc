"""What one call of ``Strategy.start`` asks for."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Result

from fedagent.proxy.server_evaluation import EvaluateFn


@dataclass(frozen=True)
class RunRequest:
    """The arguments of ``Strategy.start``, in Flower's words.

    Attributes
    ----------
    num_rounds : rounds after which the run ends; see `fedagent.proxy.rounds`.
    timeout_s : clock seconds a node may take, and the run may hear nothing.
    train_config, evaluate_config : sent to the nodes.
    evaluate_fn, should_stop : the user's questions about a round.
    """

    num_rounds: int
    timeout_s: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None
    should_stop: Callable[[int, Result], bool] | None = None
