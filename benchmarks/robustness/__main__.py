"""What a fifth of the nodes can do that lies, to a plain mean and to protected runs.

    50 nodes, lognormal speeds (sigma 1.5), 20 at work at once; packaged MNIST, Dirichlet, a linear
    model; FedBuff, a version every 10 updates, 300 updates that the rule received

    plain       nothing is done
    trusted     Zeno++ on 256 examples that the server trusts; no node gets over 10 % of all weight;
                steps 1.3 times as long, since Zeno++ makes all equally long
    data-free   the geometric median of 20 nodes' updates, bounded norms, directions compared
                with the model's own way, no node over 4 %; steps 1.3 times as long

Attackers are a random fifth of the nodes, or the fastest fifth. Losses are points of accuracy below
the plain run in which nobody lies. One row more: a node that answers 50 times as often as others,
whose share of all weight is to stay under a cap of 5 %.

    python -m benchmarks.robustness [--quick]        JSON on the last line
"""

import argparse
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.configured import run
from benchmarks.machine import print_result

COMMON = (
    "app.model=linear",
    "fleet.num_nodes=50",
    "cohort=20",
    "concurrency=20",
    "strategy=fedbuff",
    "buffer_size=10",
    "scheduler=uniform",
    "stopping.max_updates=300",
    "evaluate_every=2",
    "target=null",
)
CAP = 0.05  # of the node that answers most often
SETTINGS: dict[str, Sequence[str]] = {
    "plain": (),
    "trusted": (
        "filters=zeno",
        "robust.max_influence=0.1",
        "strategy.server_learning_rate=1.3",
    ),
    "data-free": (
        "robust=geometric_median",
        "filters=[norm_bound,direction]",
        "filters.direction.min_cosine=0.1",
        "buffer_size=20",
        "robust.max_influence=0.04",
        "strategy.server_learning_rate=1.3",
    ),
}
ATTACKS = (
    "sign_flip",
    "scaling",
    "noise",
    "label_flip",
    "little_is_enough",
    "inner_product",
    "free_rider",
    "stale_lie",
    "inflated_claim",
    "flood",
)
QUICK = {
    "plain": ("sign_flip fastest",),
    "trusted": (
        "sign_flip fastest",
        "inner_product fastest",
        "little_is_enough fastest",
        "label_flip fastest",
        "stale_lie random",
    ),
}


def accuracy(words: Iterable[str], seeds: Sequence[int]) -> float:
    """Return the mean accuracy of the last four evaluations of every run, in percent."""
    values = []
    for seed in seeds:
        _, evaluations = run([*COMMON, *words, f"seed={seed}"])
        values += [100 * line["metrics"]["accuracy"] for line in evaluations[-4:]]
    return statistics.fmean(values)


def robustness(quick: bool, seeds: Sequence[int]) -> dict[str, object]:
    """Return losses by setting and attack, and what a fast node comes to."""
    everything = [f"{attack} {who}" for who in ("random", "fastest") for attack in ATTACKS]
    asked = QUICK if quick else dict.fromkeys(SETTINGS, tuple(everything))
    clean = {name: accuracy(SETTINGS[name], seeds) for name in asked}
    losses: dict[str, dict[str, float]] = {}
    for name, cases in asked.items():
        print(f"{name:10} {'nobody lies':28} {clean[name]:5.1f} %", flush=True)
        losses[name] = {}
        for case in cases:
            attack, who = case.split()
            lies = f"attack={attack}", f"attack.attackers.who={who}"
            found = accuracy([*SETTINGS[name], *lies], seeds)
            losses[name][case] = clean["plain"] - found
            print(f"{name:10} {case:28} {found:5.1f} %", flush=True)
    return {
        "clean": clean,
        "losses": losses,
        "worst_loss_robust": max(losses["trusted"].values()),
        "loss_plain": max(losses["plain"].values()),
        "clean_cost": clean["plain"] - clean["trusted"],
        **fast_attacker(),
    }


def fast_attacker() -> dict[str, object]:
    """Return the share of the weight that a node gets which answers 50 times as often."""
    words = "fleet=straggler", "fleet.ratio=0.02", "attack=sign_flip", "attack.attackers.nodes=[49]"
    shares = {}
    for name in ("plain", "capped"):
        cap = [f"robust.max_influence={CAP}"] if name == "capped" else []
        summary, _ = run([*COMMON, *words, "concurrency=50", "attack.scale=1.0", *cap])
        shares[name] = next(iter(summary["most_influential_nodes"].items()))
        node, share = shares[name]
        print(f"{name:10} the fast node {node} has {100 * share:.1f} % of all weight", flush=True)
    return {
        "fast_node_share_plain": shares["plain"][1],
        "fast_node_share_capped": shares["capped"][1],
        "cap": CAP,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run everything; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="six attacks, one seed")
    parser.add_argument("--seeds", type=int, nargs="+", help="1 2 3; with --quick 1")
    asked = parser.parse_args(arguments)
    seeds = asked.seeds or ([1] if asked.quick else [1, 2, 3])
    print_result("robustness", robustness(asked.quick, seeds), quick=asked.quick, seeds=seeds)


if __name__ == "__main__":
    main()
