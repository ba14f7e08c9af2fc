"""What one call of ``Strategy.start`` asks for, and whether it can be."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import Result

from fedagent.errors import require
from fedagent.proxy.server_evaluation import EvaluateFn


@dataclass(frozen=True)
class RunRequest:
    """The arguments of ``Strategy.start``, in Flower's words.

    Attributes
    ----------
    initial_arrays : version 0.
    num_rounds : rounds after which the run ends; see `fedagent.proxy.rounds`.
    timeout_s : clock seconds a node may take, and the run may hear nothing.
    train_config, evaluate_config : sent to the nodes.
    evaluate_fn, should_stop : the user's questions about a round.
    """

    initial_arrays: ArrayRecord
    num_rounds: int
    timeout_s: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None
    should_stop: Callable[[int, Result], bool] | None = None

    def __post_init__(self) -> None:
        _require_kind("initial_arrays", self.initial_arrays, ArrayRecord, "model.state_dict()")
        for name in ("train_config", "evaluate_config"):
            _require_kind(name, getattr(self, name), ConfigRecord, "{'lr': 0.1}")
        require(
            isinstance(self.num_rounds, int) and self.num_rounds >= 0,
            f"start: num_rounds={self.num_rounds!r} must be a whole number, 0 or more.",
        )
        require(
            isinstance(self.timeout_s, int | float) and self.timeout_s > 0,
            f"start: timeout={self.timeout_s!r} must be a positive number of seconds.",
        )
        for name in ("evaluate_fn", "should_stop"):
            value = getattr(self, name)
            require(
                value is None or callable(value),
                f"start: {name}={value!r} is no function (server_round, ...) -> ...: pass the "
                "function itself, without calling it.",
            )


def _require_kind(name: str, value: object, kind: type, example: str) -> None:
    require(
        isinstance(value, kind),
        f"start: {name} is of type {type(value).__name__}, not {kind.__name__}: pass "
        f"{kind.__name__}({example}).",
    )
