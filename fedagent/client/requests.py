"""What a message asks a node to do, and how the node answers: Flower's conventions, and ours."""

from dataclasses import replace
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedagent import keys
from fedagent.client.trainer import LocalTraining
from fedagent.errors import ConfigurationError
from fedagent.wire.records import records_of


def partition_of(context: Context) -> int:
    """Return which partition this node holds."""
    if "partition-id" not in context.node_config:
        raise ConfigurationError(
            f"Node {context.node_id} does not know which data it holds: its node config has no "
            "'partition-id'. Start it with: "
            'flower-supernode --node-config "partition-id=0 num-partitions=2"'
        )
    return int(context.node_config["partition-id"])


def config_of(message: Message) -> ConfigRecord:
    """Return the message's config; messages without one have an empty one."""
    return records_of(message.content, ConfigRecord).get("config", ConfigRecord())


def overridden(training: LocalTraining, config: ConfigRecord) -> LocalTraining:
    """Return `training` with what the dispatch asks for, if it does."""
    if keys.LOCAL_STEPS in config:
        training = replace(training, local_steps=int(cast(int, config[keys.LOCAL_STEPS])))
    if keys.LEARNING_RATE in config:
        training = replace(training, learning_rate=float(cast(float, config[keys.LEARNING_RATE])))
    if keys.BATCH_SIZE in config:
        training = replace(training, batch_size=int(cast(int, config[keys.BATCH_SIZE])))
    return training


def reply_to(
    message: Message, metrics: dict[str, float], arrays: ArrayRecord | None = None
) -> Message:
    """Answer `message`; its token, if it has one, goes back with it."""
    content = RecordDict({"metrics": MetricRecord(dict(metrics))})
    if arrays is not None:
        content["arrays"] = arrays
    if keys.TOKEN in config_of(message):
        content["config"] = ConfigRecord({keys.TOKEN: config_of(message)[keys.TOKEN]})
    return Message(content, reply_to=message)
