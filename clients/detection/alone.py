"""What every site finds on its own: a detector trained there alone, tested at all sites.

    python -m clients.detection.alone experiment=detection_nuclei app.path=nuclei.zip

The words are those of ``fedagent run``. Every site trains for as many steps as all nodes of a run
make together. Prints JSON: F1 at an IoU of .5, by who trained and where it was tested; beside it
the mean at home and away.
"""

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
    cfg = compose(shlex.join(words), CONF)
    task = build_task(cfg)
    sites = task.data.sites
    require(bool(sites), "This data has no sites of its own; take app.dataset=nuclei.")
    steps = cfg.local_steps * cfg.stopping.max_updates
    tested = {}
    for node in range(task.num_partitions):
        tested[sites[node]] = task.alone(node, steps)
        print(f"{sites[node]}: F1 {tested[sites[node]]['f1']:.3f}", file=sys.stderr, flush=True)
    print(json.dumps(summary(tested), indent=2))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FedagentError as error:
        sys.exit(str(error))
