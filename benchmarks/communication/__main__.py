"""What codecs save, what they cost, and what they lose; see docs/communication.md.

**Bandwidth.** Encoding and decoding a vector, as a share of the speed at which it is copied.

**Simulated.** An application on a fleet of lognormal speeds and the links of phones: bytes per
update and the mean metric of the last quarter of the evaluations, at the same number of updates;
virtual seconds to within a point of what is reached without a codec. With and without what joins
the next update.

**Real.** Two nodes and a SuperLink on this machine, a model of 122 arrays that the nodes change a
little: updates per second of Flower's way, array by array, and of one array.

On the last line: ``bytes_ratio`` and ``accuracy_loss`` of ``topk+int4``, ``time_ratio`` of it
both ways (0 if it never came to the target), ``deployment_ratio`` of ``packed``.

    python -m benchmarks.communication [--quick] [--seeds 1,2,3] [--only bandwidth,simulated,real]
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.communication import bandwidth, simulated
from benchmarks.deployment.round_trips import SetUp
from benchmarks.deployment.round_trips import measure as measure_fleet
from benchmarks.machine import print_result

PARTS = ("bandwidth", "simulated", "real")


def main(arguments: list[str] | None = None) -> None:
    """Measure all parts and print the tables; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance, in about two minutes")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--seeds", default="1", help="of the simulated part, with commas")
    parser.add_argument("--app", choices=simulated.WORLDS, default="vision", help="simulated one")
    parser.add_argument("--settings", nargs="+", help="of the simulated part, besides none")
    parser.add_argument("--updates", type=int, help="of a simulated run; 800, 200 if quick")
    parser.add_argument("--model", help="of vision: cnn, mlp if quick")
    parser.add_argument("--sizes", help="parameters, with commas; 1e7,1e8 or 1e7 if quick")
    parser.add_argument(
        "--codecs", default=",packed,int8,int8 both ways", help="of the real part; empty for none"
    )
    options = parser.parse_args(arguments)
    parts, quick = options.only.split(","), options.quick
    results: dict[str, object] = dict.fromkeys(
        ("bytes_ratio", "accuracy_loss", "time_ratio", "deployment_ratio")
    )
    if "bandwidth" in parts:
        sizes = (options.sizes or ("1e7" if quick else "1e7,1e8")).split(",")
        measured = {size: bandwidth.measure(int(float(size)), 3 if quick else 7) for size in sizes}
        results["bandwidth"] = measured
        for size, rows in measured.items():
            _print_table(f"share of a copy, {size}", rows)
    if "simulated" in parts:
        seeds = [int(seed) for seed in options.seeds.split(",")]
        model, updates = options.model or ("mlp" if quick else "cnn"), options.updates
        updates = updates or (200 if quick else 800)
        words = [f"stopping.max_updates={updates}"]
        words += [f"app.model={model}"] if options.app == "vision" else []
        names = simulated.QUICK if quick else tuple(simulated.SETTINGS)
        names = ("none", *options.settings) if options.settings else names
        runs = simulated.measure(options.app, names, seeds, words)
        _print_table(f"{options.app}, {updates} updates", runs)
        results |= {
            "simulated": runs,
            "bytes_ratio": runs.get("topk+int4", {}).get("up_ratio"),
            "accuracy_loss": runs.get("topk+int4", {}).get("loss"),
            "time_ratio": runs.get("topk+int4 both ways", {}).get("time_ratio"),
        }
    if "real" in parts:
        fleet = _real(options.codecs.split(","), quick)
        _print_table("two nodes", fleet)
        results["real"] = fleet
        if {"none", "packed"} <= fleet.keys():
            rates = [fleet[name]["updates_per_s"] for name in ("packed", "none")]
            results["deployment_ratio"] = rates[0] / rates[1]
    print_result("communication", results, quick=quick, seeds=options.seeds)


def _real(codecs: list[str], quick: bool) -> dict[str, dict[str, float]]:
    """Return what two real nodes do with each codec; quick ones have a small model."""
    rows = {}
    for codec in codecs[:2] if quick else codecs:
        set_up = SetUp(
            "fedagent", "fedbuff", ("fedagent", "node"), 4 if quick else 8, 1, codec=codec
        )
        with tempfile.TemporaryDirectory() as folder:
            work = "resnet-small" if quick else "resnet"
            rows[codec or "none"] = asdict(measure_fleet(set_up, work, 2, Path(folder, "fleet")))
    return rows


def _print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in columns)} |")


if __name__ == "__main__":
    main()
