"""A ClientApp that answers with the square of a number, after what the message tells it to do."""

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from misbehaving.deeds import DEEDS

app = ClientApp()


@app.train()
def train(message, context):
    """Do the deed; what it returns is the reply."""
    config = message.content["config"]
    number = config["number"]
    reply = Message(RecordDict({"metrics": MetricRecord({"square": number**2})}), reply_to=message)
    if config["deed"]:
        return DEEDS[config["deed"]](reply, context)
    return reply
