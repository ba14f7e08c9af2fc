"""A ClientApp in plain Flower that says when it works, and for whom."""

import fcntl
import time
from pathlib import Path

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import keys

app = ClientApp()


@app.train()
def train(message, context):
    """Work for a while; the file says that this device is at it."""
    marker = Path(str(context.run_config["folder"])) / f"training-{context.node_config['device']}"
    marker.touch()
    time.sleep(float(context.run_config["seconds"]))
    marker.unlink()
    content = RecordDict(
        {
            "arrays": _counted(message, Path(str(context.run_config["folder"])) / "jobs"),
            "metrics": MetricRecord({"num-examples": 1, "device": context.node_config["device"]}),
        }
    )
    return Message(content, reply_to=message)


def _counted(message, jobs):
    """Return the model with 1 more in an element that no other job touches.

    The file has the tokens of all jobs, one a line: that of element n on the n-th.
    """
    [counts] = message.content["arrays"].to_numpy_ndarrays()
    counts = counts.copy()
    with jobs.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        counts[len(file.read().split()) % len(counts)] += 1
        file.write(f"{message.content['config'][keys.TOKEN]}\n")
    return ArrayRecord([counts])
