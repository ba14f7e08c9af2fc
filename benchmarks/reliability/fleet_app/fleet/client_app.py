"""A ClientApp in plain Flower that says when it works, and for whom."""

import time
from pathlib import Path

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

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
            "arrays": message.content["arrays"],
            "metrics": MetricRecord({"num-examples": 1, "device": context.node_config["device"]}),
        }
    )
    return Message(content, reply_to=message)
