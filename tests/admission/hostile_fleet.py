"""A process with little memory, whose fleet sends encoded replies that nobody honest sends.

    python -m tests.admission.hostile_fleet NUMBER

Prints one line of JSON: how many came by codec, how they were counted, and whether the model still
has the bytes that it had.
"""

import json
import random
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import FedBuff, keys
from fedagent.client.mods import codec_mod
from fedagent.nodes.backoff import Backoff
from fedagent.simulation import Equal
from fedagent.update import Outcome
from fedagent.wire.records import digest
from tests.toy import run

CODECS = ("packed", "half", "int8", "int4", ["topk:0.1", "int4"], "powersgd:4")
ROOM = 192 << 20
"""Bytes that the process may take beside what it has taken when all is imported."""
_NPY = b"\x93NUMPY"


def header(text: str, data: bytes = b"") -> bytes:
    """Return what a ``.npy`` file is that says whatever it likes of itself."""
    return _NPY + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def said(shape: object, data: bytes, dtype: str = "'|u1'") -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n", data)


def array(data: bytes, shape: tuple[int, ...], dtype: str = "uint8") -> Array:
    return Array(dtype, shape, "numpy.ndarray", data)


def bytes_of(honest: np.ndarray, change: random.Random) -> Array:
    """Return an encoded update that cannot be one."""
    size = honest.size
    forms = (
        lambda: array(said((1 << 40,), honest.tobytes()), (1 << 40,)),
        lambda: array(said((1 << 40,), honest.tobytes()), (size,)),
        lambda: array(said((size,), b""), (size,)),
        lambda: array(said((size,), honest.tobytes() * 2), (size,)),
        lambda: array(said((-size,), honest.tobytes()), (size,)),
        lambda: array(said((size, 1 << 31, 1 << 31), honest.tobytes()), (size,)),
        lambda: array(said("(" * 200 + ")" * 200, honest.tobytes()), (size,)),
        lambda: array(said("__import__('os').abort()", honest.tobytes()), (size,)),
        lambda: array(said((size,), honest.tobytes(), "'|O'"), (size,)),
        lambda: array(said((size,), honest.tobytes(), f"'|S{1 << 40}'"), (size,)),
        lambda: array(_NPY + b"\x02\x00\xff\xff\xff\xff" + honest.tobytes(), (size,)),
        lambda: array(b"", (size,)),
        lambda: array(change.randbytes(200), (size,)),
        lambda: Array(honest[: change.randrange(size)]),
        lambda: Array(np.resize(honest, size + change.randrange(1, 1 << 16))),
        lambda: Array(honest.reshape(1, -1)),
        lambda: Array(np.zeros(size, np.float32)),
        lambda: Array(np.full(size, 255, np.uint8)),
        lambda: Array("uint8", (size,), "pickle", honest.tobytes()),
    )
    return change.choice(forms)()


class Hostile:
    """A fleet of which one node is honest and has learnt nothing, and all others lie."""

    def __init__(self, seed: int) -> None:
        self.change, self.sent = random.Random(seed), 0

    def mod(self, message: Message, context: Context, call_next) -> Message:
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            return reply
        record = reply.content.array_records["arrays"]
        assert keys.ENCODED in record, "what follows is about encoded replies"
        self.sent += 1
        what = self.change.randrange(20)
        if what == 0:
            reply.content["metrics"] = MetricRecord({"num-examples": 1e300})
        elif what == 1:
            reply.content["own"] = ConfigRecord({keys.TOKEN: "another"})
        elif what == 2:
            reply.content["arrays"] = ArrayRecord({**record, "w": Array(np.ones(3, "f4"))})
        else:
            encoded = bytes_of(record[keys.ENCODED].numpy(), self.change)
            reply.content["arrays"] = ArrayRecord({**record, keys.ENCODED: encoded})
        return reply

    def app(self) -> ClientApp:
        app = ClientApp(mods=[self.mod, codec_mod])

        @app.train()
        def _train(message: Message, context: Context) -> Message:
            content = {
                "arrays": message.content["arrays"],
                "metrics": MetricRecord({"num-examples": 1}),
            }
            return Message(RecordDict(content), reply_to=message)

        return app


def attacked(codec: str | list[str], number: int) -> dict[str, object]:
    """Return what `number` hostile replies have done."""
    initial = {"a": torch.ones(128, 128), "b": torch.ones(128)}
    hostile = Hostile(seed=len(str(codec)))

    def enough(statistics):
        refused = {Outcome.REJECTED, Outcome.FAILED}
        counts = sum(n for (outcome, _), n in statistics.outcomes.items() if outcome in refused)
        return "all came" if counts >= number else None

    strategy = FedBuff(
        buffer_size=1,
        codec=codec,
        concurrency=8,
        stopping=[enough],
        fraction_evaluate=0.0,
        backoff=Backoff(base_s=1e-3, cap_s=1e-3),  # or the honest node would do all the work
    )
    done = run(strategy, Equal(num_nodes=8), rounds=10**6, client=hostile.app(), initial=initial)
    statistics = strategy.proxy.statistics
    return {
        "sent": hostile.sent,
        "outcomes": statistics.by_outcome(),
        "versions": statistics.version,
        "is_unchanged": digest(done.result.arrays) == digest(ArrayRecord(initial)),
    }


def limit_holds() -> bool:
    """Whether an array that does not fit is refused by the system."""
    try:
        bytearray(2 * ROOM)
    except MemoryError:
        return True
    return False


def main() -> None:
    status = Path("/proc/self/status").read_text()
    taken = int(status.split("VmSize:")[1].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    number = int(sys.argv[1])
    found = {str(codec): attacked(codec, number // len(CODECS) + 1) for codec in CODECS}
    print(json.dumps(found | {"limit_holds": limit_holds()}))


if __name__ == "__main__":
    main()
