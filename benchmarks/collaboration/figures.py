"""Consensus and personalisation as figures."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.collaboration import personalisation
from benchmarks.collaboration.sections import NODES, TOPOLOGIES, distances, second_eigenvalue


def plot_consensus(file: Path) -> None:
    """Draw distances beside powers of the second eigenvalue."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for (name, build), color in zip(TOPOLOGIES.items(), ("C0", "C1", "C2"), strict=True):
        matrix = build(NODES)
        fallen, second = distances(matrix, 30), second_eigenvalue(matrix)
        fallen = [distance / fallen[0] for distance in fallen]
        axis.semilogy(fallen, "o", ms=4, color=color, label=f"{name}, $|\\lambda_2|$={second:.3f}")
        late = 8
        line = [fallen[late] * second ** (t - late) for t in range(len(fallen))]
        axis.semilogy(line, "--", lw=1, color=color)
    axis.set(xlabel="sweeps", ylabel="consensus distance, relative to the first", ylim=(1e-4, 1.5))
    axis.legend()
    figure.savefig(file, dpi=110)


def plot_personalisation(file: Path, settings: tuple[int, tuple[float, ...], int]) -> None:
    """Draw the mean and the worst node's accuracy of one seed over the updates."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    _, curves = personalisation.study("rotated", *settings)
    for n, (name, run) in enumerate(curves.items()):
        color = f"C{n}"
        axis.plot(run.updates, run.mean, "-", color=color, label=name)
        axis.plot(run.updates, run.worst, ":", color=color)
    axis.set(xlabel="updates", ylabel="accuracy: mean (line), worst node (dots)")
    axis.legend()
    figure.savefig(file, dpi=110)
