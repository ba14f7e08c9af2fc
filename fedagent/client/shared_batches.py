"""Training requests that can share a batch: which, and with whom."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from flwr.app import Context, Message

from fedagent import keys
from fedagent.client.device import tensors_of
from fedagent.client.request import asked, config_in, model_in, partition_of, reply_to
from fedagent.client.spec import LoadedClient
from fedagent.client.trainer import LocalTraining
from fedagent.client.vectorised import ClientShare
from fedagent.update import Kind
from fedagent.wire.records import to_record

_MAX_BATCHES_BYTES = 256 << 20  # of the batches of clients that train together

Request = tuple[Message, Context]


def train_group(
    requests: Sequence[Request],
    on_start: Callable[[int], None],
    client_for: Callable[[Context], LoadedClient],
) -> dict[int, Message]:
    """Do the training requests that can share a batch; return their replies by index.

    Whatever is left out has to be done alone: what is no training, or in mixed precision; a run
    with mods, which see one message at a time; a task of whose model not all is shared; a client
    whose batches have a shape of their own, or fail to be drawn; and what would make all batches
    hold more than 256 MB.

    Parameters
    ----------
    requests : what the app is called with; messages are not changed.
    on_start : called with a request's index before its batches are drawn, to seed generators.
    client_for : what the process has made of a request's run.

    Raises
    ------
    RuntimeError, NotImplementedError
        If the task's loss cannot be computed for many models at once.
    """
    groups: dict[Hashable, dict[int, _Drawn]] = defaultdict(dict)
    starts: dict[Hashable, Mapping[str, torch.Tensor]] = {}
    room = _MAX_BATCHES_BYTES
    for index, request in enumerate(requests):
        if request[0].metadata.message_type != Kind.TRAIN:
            continue
        on_start(index)
        drawn = _draw(request, client_for, starts, room)
        if drawn is not None:
            room -= drawn.num_bytes
            groups[drawn.form][index] = drawn
    replies = {}
    for group in groups.values():
        if len(group) > 1:
            client, training = next((d.client, d.training) for d in group.values())
            results = client.vectorised.train([drawn.share for drawn in group.values()], training)
            for (index, drawn), (state, metrics) in zip(group.items(), results, strict=True):
                metrics["num-examples"] = drawn.num_examples
                arrays = to_record({key: t.cpu().numpy() for key, t in state.items()})
                replies[index] = reply_to(requests[index][0], metrics, arrays)
    return replies


@dataclass(frozen=True)
class _Drawn:
    """A training request with its data; those of the same `form` can share a batch."""

    client: LoadedClient
    training: LocalTraining
    share: ClientShare
    num_examples: int
    num_bytes: int
    form: Hashable


def _draw(
    request: Request,
    client_for: Callable[[Context], LoadedClient],
    starts: dict[Hashable, Mapping[str, torch.Tensor]],
    room: int,
) -> _Drawn | None:
    """Draw a request's batches, which may hold `room` bytes; `starts` are the versions so far."""
    message, context = request
    try:
        client, partition_id = client_for(context), partition_of(context)
        training = asked(client.training, message)
        num_examples = client.task.num_examples(partition_id)
        endless = client.task.batches(partition_id, training.batch_size)
        batches = list(islice(endless, 1))
        num_bytes = training.local_steps * sum(t.nbytes for t in tensors_of(batches))
        # What cannot be trained as one batch.
        is_special = not client.is_all_shared or training.precision != "float32"
        # The business of mods.
        is_special |= keys.CODEC in message.content or keys.SECURE in config_in(message)[1]
        if client.mods or num_bytes > room or is_special:
            return None
        batches += islice(endless, training.local_steps - 1)
        _, arrays = model_in(message)
        version = tuple(id(array.data) for array in arrays.values())
        if version not in starts:
            starts[version] = arrays.to_torch_state_dict()
    except Exception:  # done alone, the request meets the same and is answered for
        return None
    shapes = {tuple((t.shape, t.dtype) for t in tensors_of(batch)) for batch in batches}
    if len(batches) < training.local_steps or len(shapes) > 1:
        return None
    form = id(client), replace(training, local_steps=1), shapes.pop()
    share = ClientShare(starts[version], batches)
    return _Drawn(client, training, share, num_examples, num_bytes, form)
