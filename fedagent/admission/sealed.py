"""What comes of a node whose update is in a secure sum: keys at first, and never the update."""

from collections.abc import Sequence

import torch
from flwr.app import ArrayRecord, Message

from fedagent import keys
from fedagent.admission.gate import Admission
from fedagent.admission.refusal import RefusedError, refuse_unless
from fedagent.arrays import ArraySpec, NDArray
from fedagent.privacy.secure import Stage, answer_of
from fedagent.privacy.secure.masks import KEY_BYTES, is_public_key
from fedagent.update import Dispatch, Outcome, Rejection, Update
from fedagent.wire.npy import MalformedArrayError, read_array
from fedagent.wire.records import records_of


def kept_update(
    admission: Admission,
    reply: Message,
    dispatch: Dispatch,
    staleness: int,
    now_s: float,
    begun_s: float,
) -> Update | Rejection:
    """Return what a reply stands for whose node keeps its update, or refuse it."""
    metrics = admission.check_metrics(reply, dispatch)
    if isinstance(metrics, Rejection):
        return metrics
    found = sealed_arrays(admission, reply, dispatch, answer_of(Stage.KEEP, 0, 0))
    if isinstance(found, Rejection):
        return found
    announced = found["keys"].tobytes()
    if not all(map(is_public_key, (announced[:KEY_BYTES], announced[KEY_BYTES:]))):
        detail = "nobody can agree on anything with these public keys"
        return Rejection(Outcome.REJECTED, "sealed", detail)
    return Update(
        dispatch.node_id,
        delta=torch.empty(0),
        base=torch.empty(0),
        staleness=staleness,
        num_examples=float(metrics[admission.weighted_by_key]),  # type: ignore[arg-type]
        metrics=metrics,
        duration_s=now_s - begun_s,
        local_steps=dispatch.local_steps,
        arrived_s=now_s,
        group=dispatch.group,
        sealed=announced,
    )


def sealed_arrays(
    admission: Admission, reply: Message, dispatch: Dispatch, expected: Sequence[ArraySpec]
) -> dict[str, NDArray] | Rejection:
    """Return the arrays with which a node does its part, or refuse them."""
    try:
        records = records_of(admission.content(reply, dispatch), ArrayRecord)
        refuse_unless(
            list(records) == [keys.SEALED],
            "not-sealed",
            f"expected {keys.SEALED!r} and no other arrays; does the ClientApp name "
            "fedagent.client.mods.secure_mod, before all mods but codec_mod?",
        )
        record = records[keys.SEALED]
        names = [spec.name for spec in expected]
        refuse_unless(
            sorted(record) == sorted(names),
            "sealed",
            f"expected the arrays {names}, found {len(record)} that are not all of them",
        )
        return {spec.name: read_array(record[spec.name], spec) for spec in expected}
    except MalformedArrayError as error:
        return Rejection(Outcome.REJECTED, "sealed", str(error))
    except RefusedError as refused:
        return refused.rejection
