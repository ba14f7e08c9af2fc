"""What every site finds on its own: a detector trained there alone, tested at all sites.

    python -m clients.detection.alone experiment=detection_nuclei app.path=nuclei.zip

The words are those of ``fedagent run``; ``--steps`` says how long each site trains, with batches of
16. Prints JSON: F1 at an IoU of .5, by who trained and where it was tested; beside it that at home
and the mean away.
"""

import argparse
import json
import shlex
import sys
from statistics import fmean

from clients.references import CONF
from fedagent.config import build_task, compose
from fedagent.errors import FedagentError, require
from fedagent.tasks import Metrics


def summary(tested: dict[str, Metrics]) -> dict[str, dict[str, float]]:
    """Return, per site that trained, its F1 at every site, at home and, in the mean, away."""
    rows = {}
    for home, metrics in tested.items():
        row = {site: metrics[f"f1-{site}"] for site in tested}
        rows[home] = row | {
            "home": row[home],
            "away": fmean(f1 for site, f1 in row.items() if site != home),
        }
    return rows


def main(words: list[str]) -> None:
    """Train at every site in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of every site (300)")
    options, overrides = parser.parse_known_args(words)
    task = build_task(compose(shlex.join(overrides), CONF))
    sites = task.data.sites
    require(bool(sites), "This data has no sites of its own; take app.dataset=nuclei.")
    tested = {}
    for node in range(task.num_partitions):
        tested[sites[node]] = task.alone(node, options.steps)
        print(f"{sites[node]}: F1 {tested[sites[node]]['f1']:.3f}", file=sys.stderr, flush=True)
    print(json.dumps(summary(tested), indent=2))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FedagentError as error:
        sys.exit(str(error))
