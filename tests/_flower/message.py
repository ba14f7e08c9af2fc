"""A message as a strategy sends it."""

from flwr.app import ConfigRecord, Message, RecordDict


def request() -> Message:
    return Message(RecordDict({"config": ConfigRecord({"lr": 0.1})}), 7, "train", group_id="3")
