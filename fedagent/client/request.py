"""What a message asks a node to do, and how the node answers.

Flower's strategies let users name the records of a message (``arrayrecord_key``,
``configrecord_key``), and a message does not say which is which. So a record is found by what it
is: the only one of its kind. Among several ConfigRecords it is the one with keys of ours, among
several ArrayRecords the one with Flower's usual name. A reply uses the names of its request.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedagent import keys
from fedagent.client.trainer import LocalTraining
from fedagent.errors import ConfigurationError
from fedagent.wire.records import records_of

_ARRAYS, _CONFIG = "arrays", "config"  # the names that Flower's strategies use by default


def partition_of(context: Context) -> int:
    """Return which partition this node holds."""
    if keys.PARTITION_ID not in context.node_config:
        raise ConfigurationError(
            f"Node {context.node_id} does not know which data it holds: its node config has no "
            f"{keys.PARTITION_ID!r}. Start it with: "
            'flower-supernode --node-config "partition-id=0 num-partitions=2"'
        )
    return int(context.node_config[keys.PARTITION_ID])


def model_in(message: Message) -> tuple[str, ArrayRecord]:
    """Return the name and the arrays of the model in a request or a reply.

    Raises
    ------
    ConfigurationError
        If the message has no ArrayRecord, or several and none has Flower's usual name.
    """
    records = records_of(message.content, ArrayRecord)
    if len(records) == 1:
        return next(iter(records.items()))
    if _ARRAYS in records:
        return _ARRAYS, records[_ARRAYS]
    raise ConfigurationError(
        f"The message holds {_listed(records, 'ArrayRecord')}, so it does not say which is the "
        f"model. Send the model as the only ArrayRecord, or under the name {_ARRAYS!r}."
    )


def config_in(message: Message) -> tuple[str, ConfigRecord]:
    """Return the name and the entries of the config in a message; without one it is empty.

    Raises
    ------
    ConfigurationError
        If several ConfigRecords hold one of `keys.FOR_CLIENTS`.
    """
    records = records_of(message.content, ConfigRecord)
    if len(records) > 1:
        for_us = {n: r for n, r in records.items() if any(key in r for key in keys.FOR_CLIENTS)}
        if len(for_us) > 1:
            raise ConfigurationError(
                f"The message holds {_listed(for_us, 'ConfigRecord')}, each with settings for "
                f"the client ({', '.join(keys.FOR_CLIENTS)}), so it does not say which to follow. "
                "Put these keys into one of them."
            )
        records = for_us or {n: r for n, r in records.items() if n == _CONFIG}
    return next(iter(records.items()), (_CONFIG, ConfigRecord()))


def _listed(names: Iterable[str], kind: str) -> str:
    return f"the {kind}s {', '.join(map(repr, names))}" if names else f"no {kind}"


def asked(training: LocalTraining, message: Message) -> LocalTraining:
    """Return `training` with what the dispatch asks for, if it does."""
    _, config = config_in(message)
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
        content[model_in(message)[0]] = arrays
    name, config = config_in(message)
    if keys.TOKEN in config:
        content[name] = ConfigRecord({keys.TOKEN: config[keys.TOKEN]})
    return Message(content, reply_to=message)
