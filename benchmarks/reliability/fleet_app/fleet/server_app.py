"""A ServerApp that trains until a file says stop, and notes how every dispatch ended."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp

from fedagent import FedBuff
from fedagent.callbacks import Callback
from fedagent.journal import Checkpoints
from fedagent.rules.staleness import constant

app = ServerApp()


class Notes(Callback):
    """Writes a line per dispatch that has ended, and the counts at the end."""

    def __init__(self, folder):
        self.folder = folder

    def on_settled(self, statistics, settlement):
        """Write it down."""
        line = {
            "node": settlement.dispatch.node_id,
            "token": settlement.dispatch.token,
            "sent_at_s": settlement.dispatch.sent_at_s,
            "outcome": str(settlement.outcome),
            "reason": settlement.reason,
            "now_s": statistics.now_s,
        }
        with (self.folder / "settlements.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if line["outcome"] == "applied":
            with (self.folder / "acknowledged").open("a") as file:
                file.write(f"{line['token']}\n")

    def on_end(self, statistics, end, arrays):
        """Write down what there was."""
        summary = {
            "end": str(end),
            "num_dispatches": statistics.num_dispatches,
            "not_sent": statistics.by_outcome().get("failed(not-sent)", 0),
            "num_updates": statistics.num_updates,
            "seconds": statistics.now_s,
        }
        np.save(self.folder / "counts.npy", arrays().to_numpy_ndarrays()[0])
        (self.folder / "num_updates").write_text(str(statistics.num_updates))
        (self.folder / "summary.json").write_text(json.dumps(summary))


class Noting(FedBuff):
    """FedBuff with K = 1, so each update makes a version; notes which devices have delivered."""

    folder: Path

    def aggregate_train(self, server_round, replies):
        """Take a reply; note it if it counts."""
        [reply] = replies
        before = self.proxy.statistics.num_updates
        newest = super().aggregate_train(server_round, [reply])
        if self.proxy.statistics.num_updates > before:
            with (self.folder / "delivered").open("a") as file:
                file.write(f"{reply.content['metrics']['device']}\n")
        return newest


@app.main()
def main(grid, context):
    """Train, or go on with what there is."""
    config = context.run_config
    folder, saving = Path(str(config["folder"])), None
    (folder / "server-pid").write_text(str(os.getpid()))
    if every := int(config["checkpoint-every"]):
        kept = folder / "checkpoints"
        saving = Checkpoints(kept, "updates", every, resume=kept.exists())
    strategy = Noting(
        buffer_size=1,
        staleness=constant,  # every update adds what it is
        min_available_nodes=int(config["num-nodes"]),
        concurrency=int(config["concurrency"]),
        fraction_evaluate=0.0,
        callbacks=[Notes(folder)],
        checkpoint=saving,
        stopping=[lambda _: "told to" if (folder / "stop").exists() else None],
    )
    strategy.folder = folder
    arrays = ArrayRecord([np.zeros(int(config["parameters"]), np.float32)])
    strategy.start(grid, arrays, num_rounds=1_000_000, timeout=300.0)
