r"""Two nodes that learn from each other: the application's path beside a recursion in NumPy.

    theta_1(t+1) = theta_1(t) - M (c_11 grad L_1(theta_1(t)) + c_21 grad L_2(theta_2(t)))
    theta_2(t+1) = theta_2(t) - M (c_12 grad L_1(theta_1(t)) + c_22 grad L_2(theta_2(t)))

docs/collaboration.md derives where they go. Shape legend: T steps, D weights; nodes 1 and 2 are
entries 0 and 1.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from matplotlib.figure import Figure

from clients.regression import RegressionTask
from fedagent import keys
from fedagent.callbacks import Callback
from fedagent.config import build_task, compose, instantiate
from fedagent.mixing import Mixing
from fedagent.simulation import run_simulation
from server.app import CONF, initial_arrays

Array = np.ndarray


class Trace(Callback):
    """Keeps every node's model after every version."""

    def __init__(self) -> None:
        self.rule: Mixing | None = None
        self.steps: list[Array] = []

    def on_version(self, statistics) -> None:
        """Copy the models."""
        self.steps.append(self.rule.models.numpy().copy())


def simulated(experiment: str, steps: int, *overrides: str) -> tuple[RegressionTask, Array]:
    """Run the application; return its task and the (T + 1, 2, D) models of both nodes."""
    words = " ".join([f"experiment={experiment}", *overrides, "strategy.evaluate_every=1000000"])
    cfg = compose(words, CONF)
    task, path, server = build_task(cfg), Trace(), ServerApp()

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        strategy = instantiate(cfg.strategy, callbacks=[path], stopping=[])
        path.rule = strategy.rule
        config = {keys.LOCAL_STEPS: cfg.local_steps, keys.LEARNING_RATE: cfg.learning_rate}
        strategy.start(
            grid, initial_arrays(cfg, task), num_rounds=steps, train_config=ConfigRecord(config)
        )

    run_simulation(
        server,
        "clients.app:app",
        fleet=instantiate(cfg.fleet),
        seed=cfg.seed,
        run_config={"overrides": words},
    )
    return task, np.stack([np.zeros_like(path.steps[0]), *path.steps])


def gradient(task: RegressionTask, node: int | None, theta: Array) -> Array:
    """Return grad L of one node, or of the pooled data, at the (D,) point `theta`."""
    x, y = (tensor.numpy() for tensor in task.examples(node))
    predicted = x @ theta if task.kind == "linear" else 1 / (1 + np.exp(-x @ theta))
    return x.T @ (predicted - y) / len(y)


def hessian(task: RegressionTask, node: int | None, theta: Array) -> Array:
    """Return the (D, D) second derivative of L."""
    x = task.examples(node).features.numpy()
    p = 1 / (1 + np.exp(-x @ theta))
    weights = np.ones(len(x)) if task.kind == "linear" else p * (1 - p)
    return (x.T * weights) @ x / len(x)


def optimum(task: RegressionTask, node: int | None) -> Array:
    """Return where the gradient of a node, or of the pooled data, vanishes (Newton's method)."""
    theta = np.zeros(task.dimension)
    for _ in range(50):
        theta -= np.linalg.solve(hessian(task, node, theta), gradient(task, node, theta))
    return theta


def recursion(task: RegressionTask, c: Sequence[Sequence[float]], rate: float, steps: int) -> Array:
    """Return the (T + 1, 2, D) path of the equations above for C = (c_ik)."""
    (c_11, c_12), (c_21, c_22) = c
    path = np.zeros((steps + 1, 2, task.dimension))
    for t in range(steps):
        delta_1 = rate * gradient(task, 0, path[t, 0])
        delta_2 = rate * gradient(task, 1, path[t, 1])
        path[t + 1, 0] = path[t, 0] - c_11 * delta_1 - c_21 * delta_2
        path[t + 1, 1] = path[t, 1] - c_12 * delta_1 - c_22 * delta_2
    return path


def growth(task: RegressionTask, c: Sequence[Sequence[float]], rate: float) -> float:
    """Return the largest factor per step by which a distance from the nodes' optima changes."""
    blocks = [[c[i][k] * hessian(task, i, optimum(task, i)) for i in (0, 1)] for k in (0, 1)]
    jacobian = np.eye(2 * task.dimension) - rate * np.block(blocks)
    return float(np.abs(np.linalg.eigvals(jacobian)).max())


CASES = {
    "c_12 = c_21 = 0.2": (0.2, 0.2, True),
    "c_12 = 0.1, c_21 = 0.6": (0.1, 0.6, True),
    "c_12 = c_21 = 0.5": (0.5, 0.5, True),
    "raw, c_12 = c_21 = 0.5": (0.5, 0.5, False),
}


def matrix(c_12: float, c_21: float, stochastic: bool) -> list[list[float]]:
    """Return C."""
    return [[1 - c_21, c_12], [c_21, 1 - c_12]] if stochastic else [[0, c_12], [c_21, 0]]


def distance(path: Array, other: Array) -> float:
    """Return the largest difference at any step, relative to models larger than 1."""
    return float((abs(path - other) / np.maximum(1.0, abs(other))).max())


def study(kind: str, steps: int, rate: float = 0.5) -> tuple[dict, dict[str, Array]]:
    """Return, per case, errors against recursion and optima; and the paths."""
    rows, paths = {}, {}
    for name, (c_12, c_21, stochastic) in CASES.items():
        task, path = simulated(
            f"two_node_{kind}",
            steps,
            f"learning_rate={rate}",
            f"mixing.c_12={c_12}",
            f"mixing.c_21={c_21}",
            f"mixing.stochastic={str(stochastic).lower()}",
        )
        c = matrix(c_12, c_21, stochastic)
        own = np.stack([optimum(task, 0), optimum(task, 1)])
        rows[name] = {
            "largest_error_of_any_step": distance(path, recursion(task, c, rate, steps)),
            "to_own_optima": float(np.linalg.norm(path[-1] - own, axis=1).max()),
            "to_pooled_optimum": float(
                np.linalg.norm(path[-1] - optimum(task, None), axis=1).max()
            ),
            "growth_per_step": growth(task, c, rate),
        }
        paths[name] = path
    return rows, paths


def plot(file: Path, steps: int = 150) -> None:
    """Draw both nodes' paths for every case, linear above logistic."""
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplots(2, len(CASES))
    for row, kind in zip(axes, ("linear", "logistic"), strict=True):
        _, paths = study(kind, steps)
        task = build_task(compose(f"experiment=two_node_{kind} learning_rate=0.5", CONF))
        own, pooled = [optimum(task, 0), optimum(task, 1)], optimum(task, None)
        for axis, (name, path) in zip(row, paths.items(), strict=True):
            shown = path[: 40 if "raw" in name else None]  # it leaves the picture
            for node, color in ((0, "tab:blue"), (1, "tab:orange")):
                axis.plot(
                    *shown[:, node].T, ".-", color=color, ms=3, lw=1, label=f"node {node + 1}"
                )
                axis.plot(*own[node], "*", color=color, ms=13, mec="k", label=f"optimum {node + 1}")
            axis.plot(*pooled, "kX", ms=9, label="pooled optimum")
            axis.set_title(f"{kind}: {name}", fontsize=10)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(file, dpi=110)
