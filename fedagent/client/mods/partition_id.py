"""Telling the proxy which partition a node holds."""

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys


def partition_id_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Add ``partition-id`` from the node config to the reply's metrics.

    `fedagent.mixing` numbers nodes by it, and `fedagent.Collaborative` names them in evaluations.
    A node whose config has none, and a reply without metrics, stay as they are.
    """
    reply = call_next(message, context)
    if not reply.has_error() and keys.PARTITION_ID in context.node_config:
        for metrics in reply.content.metric_records.values():
            metrics[keys.PARTITION_ID] = int(context.node_config[keys.PARTITION_ID])
    return reply
