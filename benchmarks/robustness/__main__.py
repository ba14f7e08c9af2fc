"""What a fifth of the nodes can do that lies, to a plain mean and to protected runs.

    mnist       50 nodes, lognormal speeds (sigma 1.5), 20 at work at once; packaged MNIST,
                Dirichlet, a linear model; FedBuff, a version every 10 updates, 300 updates that
                the rule received; accuracy
    medical     20 clinics, 10 at work at once; brain MRI of 32x32 pixels; FedBuff, a version every
                5 updates, 300 updates that the rule received; AUROC

    plain       nothing is done
    trusted     FLTrust on 256 examples that the server trusts
    capped      the same, and no node gets over 10 % of all weight
    data-free   the geometric median of as many nodes' updates as are at work, bounded norms,
                directions compared with the model's own way, no node over 4 %; steps 1.3 times as
                long

Attackers are a random or the fastest fifth of the nodes. A run's metric is its mean over the last
quarter of the run, losses are points (hundredths) below the plain run in which nobody lies. One row
more, of mnist: a node that answers 50 times as often as others, whose share of all weight is to
stay under a cap of 5 %.

    python -m benchmarks.robustness [--quick] [--app medical] [--seeds 1 2] [--settings trusted]
    python -m benchmarks.robustness --app medical --settings capped --attacks little_is_enough

JSON on the last line; ``dp_gap`` in it is that of `benchmarks.privacy`, short as with its --quick.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence

from benchmarks.configured import run
from benchmarks.machine import print_result
from benchmarks.privacy.__main__ import gap
from fedagent.errors import RunStalledError

ALWAYS = (
    "strategy=fedbuff",
    "scheduler=uniform",
    "stopping.max_updates=300",
    "target=null",
    "evaluate_every=1",
)
APPS: dict[str, Sequence[str]] = {
    "mnist": (
        *ALWAYS,
        "app.model=linear",
        "fleet.num_nodes=50",
        "cohort=20",
        "concurrency=20",
        "buffer_size=10",
    ),
    "medical": ("app=medical", *ALWAYS, "app.size=32"),
}
METRICS = {"mnist": "accuracy", "medical": "auroc"}
CHANCE = {"mnist": 10.0, "medical": 50.0}
CAP = 0.05  # of the node that answers most often
SETTINGS: dict[str, Sequence[str]] = {
    "plain": (),
    "trusted": ("filters=fltrust",),
    "capped": ("filters=fltrust", "robust.max_influence=0.1"),
    "data-free": (
        "robust=geometric_median",
        "filters=[norm_bound,direction]",
        "filters.direction.min_cosine=0.1",
        "buffer_size=${concurrency}",
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


def reached(app: str, words: Iterable[str], seeds: Sequence[int]) -> float:
    """Return the mean metric of the last quarter of the evaluations of every run, in hundredths.

    A run whose model left everybody with infinite numbers has what guessing has.
    """
    values: list[float] = []
    for seed in seeds:
        try:
            _, evaluations = run([*APPS[app], *words, f"seed={seed}"])
        except RunStalledError as error:
            print(f"{app}, seed {seed}: {error}", file=sys.stderr)
            values.append(CHANCE[app])
            continue
        last = evaluations[-len(evaluations) // 4 :]
        values.append(100 * statistics.fmean(line["metrics"][METRICS[app]] for line in last))
    return statistics.fmean(values)


def robustness(
    app: str, asked: dict[str, Sequence[str]], seeds: Sequence[int]
) -> dict[str, object]:
    """Return losses by setting and attack.

    Parameters
    ----------
    asked : settings, and the attacks on each.
    """
    clean = {name: reached(app, SETTINGS[name], seeds) for name in {"plain": (), **asked}}
    losses: dict[str, dict[str, float]] = {}
    for name, cases in asked.items():
        print(f"{name:10} {'nobody lies':28} {clean[name]:5.1f} %", flush=True)
        losses[name] = {}
        for case in cases:
            attack, who = case.split()
            lies = f"attack={attack}", f"attack.attackers.who={who}"
            found = reached(app, [*SETTINGS[name], *lies], seeds)
            losses[name][case] = clean["plain"] - found
            print(f"{name:10} {case:28} {found:5.1f} %", flush=True)
    return {
        "clean": clean,
        "losses": losses,
        "worst_losses": {name: max(of.values()) for name, of in losses.items()},
        "worst_loss_robust": max(losses.get("trusted", {"": None}).values()),
        "loss_plain": max(losses.get("plain", {"": None}).values()),
        "clean_cost": clean["plain"] - clean["trusted"] if "trusted" in clean else None,
    }


def fast_attacker() -> dict[str, object]:
    """Return the share of the weight that a node gets which answers 50 times as often."""
    words = "fleet=straggler", "fleet.ratio=0.02", "attack=sign_flip", "attack.attackers.nodes=[49]"
    shares = {}
    for name in ("plain", "capped"):
        cap = [f"robust.max_influence={CAP}"] if name == "capped" else []
        summary, _ = run([*APPS["mnist"], *words, "concurrency=50", "attack.scale=1.0", *cap])
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
    parser.add_argument("--app", choices=APPS, default="mnist", help="default mnist")
    parser.add_argument("--seeds", type=int, nargs="+", help="1 2 3; with --quick 1")
    parser.add_argument("--settings", choices=SETTINGS, nargs="+", help="these only")
    parser.add_argument("--attacks", choices=ATTACKS, nargs="+", help="these only")
    options = parser.parse_args(arguments)
    app, quick = options.app, options.quick
    seeds = options.seeds or ([1] if quick else [1, 2, 3])
    attacks = options.attacks or ATTACKS
    everything = [f"{attack} {who}" for who in ("random", "fastest") for attack in attacks]
    asked = QUICK if quick else dict.fromkeys(SETTINGS, tuple(everything))
    asked = {name: asked.get(name, everything) for name in options.settings or asked}
    found = robustness(app, asked, seeds)
    if app == "mnist":
        found |= {**fast_attacker(), "dp_gap": gap(seeds[:1], 4_000)}
    print_result("robustness", found, app=app, quick=quick, seeds=seeds)


if __name__ == "__main__":
    main()
