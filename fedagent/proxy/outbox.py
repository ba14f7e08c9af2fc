"""What leaves the proxy: messages are built, sent one by one, and matched with their jobs."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedagent import keys
from fedagent._flower import record_of
from fedagent.proxy.codecs import NodeCodecs, Order
from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Version
from fedagent.proxy.options import AsyncOptions
from fedagent.scheduling import Assignment
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind
from fedagent.wire.records import payload_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A message that was handed to the grid.

    Attributes
    ----------
    dispatch : what its node was asked; without a message id, if the grid refused it.
    num_bytes : serialised model bytes in it.
    refusal : why the grid refused it.
    base : the model of its own that the node got; None for the published one.
    is_assigned : whether it hands out a job that was assigned; the user's strategy may have made
        it itself.
    """

    dispatch: Dispatch
    num_bytes: int
    refusal: str
    base: Version | None = None
    is_assigned: bool = False


class Outbox:
    """Builds and sends messages. A job and its message know each other by a token.

    Parameters
    ----------
    grid : where messages go.
    options : keys of the records.
    jobs : the table of jobs.
    ttl_s : node id -> seconds after which the grid answers for it.
    over_network : whether the grid may fail for a while.
    codecs : encodes what leaves for nodes that can decode it.
    """

    def __init__(
        self,
        grid: Grid,
        options: AsyncOptions,
        jobs: Jobs,
        ttl_s: Callable[[int], float],
        over_network: bool,
        codecs: NodeCodecs,
    ) -> None:
        self._grid, self._options, self._jobs, self._ttl_s = grid, options, jobs, ttl_s
        self._over_network, self._codecs = over_network, codecs

    def message(
        self,
        kind: Kind,
        arrays: ArrayRecord,
        config: ConfigRecord,
        job: Assignment,
        base: Version | None = None,
    ) -> Message:
        """Build the message that hands `job` to its node; `base` is a model only this node gets."""
        token = secrets.token_hex(8)
        if kind is Kind.TRAIN:
            self._jobs.build(job.node_id, token, base, job.group)
        config = config.copy()
        config[keys.TOKEN] = token
        if job.local_steps is not None:
            config[keys.LOCAL_STEPS] = job.local_steps
        if job.learning_rate is not None:
            config[keys.LEARNING_RATE] = job.learning_rate
        if job.batch_size is not None:
            config[keys.BATCH_SIZE] = job.batch_size
        content = record_of(
            RecordDict,
            {
                self._options.arrayrecord_key: arrays if base is None else base.payload,
                self._options.configrecord_key: config,
            },
        )
        ttl_s = self._ttl_s(job.node_id)
        return Message(content, dst_node_id=job.node_id, message_type=kind.message_type, ttl=ttl_s)

    def send(
        self,
        kind: Kind,
        messages: Iterable[Message],
        statistics: Statistics,
        deadline_s: Callable[[int], float],
    ) -> Iterator[Sent]:
        """Send messages one by one: a grid reports per call what it could not send.

        Parameters
        ----------
        messages : what the strategy's hook returned, which need not be what was built.
        statistics : the newest version, and what time it is.
        deadline_s : node id -> seconds that the node may take.
        """
        for message in messages:
            # Read what the client will read: an override of configure_train may have changed it.
            config = message.content.get(self._options.configrecord_key)
            config = config if isinstance(config, ConfigRecord) else ConfigRecord()
            node_id, token = message.metadata.dst_node_id, str(config.get(keys.TOKEN, ""))
            job = self._jobs.send(node_id, token) if kind is Kind.TRAIN else None
            order = Order()
            if job or kind is Kind.EVALUATE:
                base, key = job.base if job else None, self._options.arrayrecord_key
                order = self._codecs.prepare(message, key, kind, token, base)
            num_bytes = payload_bytes(message.content)
            message_id, refusal = self._pushed(message)
            dispatch = Dispatch(
                message_id=message_id,
                node_id=node_id,
                version=statistics.version,
                token=token,
                sent_at_s=statistics.now_s,
                deadline_s=statistics.now_s + deadline_s(node_id),
                kind=kind,
                local_steps=config.get(keys.LOCAL_STEPS),  # type: ignore[arg-type]
                learning_rate=config.get(keys.LEARNING_RATE),  # type: ignore[arg-type]
                bytes_down=num_bytes,
                group=job.group if job else None,
                codec=order.codec,
                codec_seed=order.seed,
            )
            yield Sent(dispatch, num_bytes, refusal, order.base, job is not None)

    def _pushed(self, message: Message) -> tuple[str, str]:
        """Return the id of a message that the grid took, or an empty one, and why it did not.

        A SuperLink that dies in the middle of a message is an error of Flower's, and no end of the
        run: when it is back the node gets another.
        """
        try:
            message_id = next((i for i in self._grid.push_messages([message]) if i), "")
        except Exception as error:
            if not self._over_network:
                raise
            return "", f"{type(error).__name__}: {error}"
        return message_id, "" if message_id else "the grid refused the message"
