"""How fast vectors are encoded and decoded, against a copy of the same vector."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from fedagent.model import ModelSpec
from fedagent.wire.codec import decode, encode
from fedagent.wire.codecs import codec_of
from fedagent.wire.npy import of_bytes

CODECS = ("packed", "half", "int8", "int4", "topk:0.1+int4", "randk:0.05", "powersgd:4")


def measure(parameters: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Return, per codec, the share of a copy's bandwidth and how many times fewer bytes there are.

    ``encode`` and ``decode`` are against a copy into memory that the process has not touched, as
    that of a message is; ``encode_warm`` is against one into memory that it has, which is as fast
    as memory goes. Samples of all codecs are taken in turn, and the median counts.
    """
    spec = ModelSpec.of({"w": np.zeros((parameters // 1000, 1000), np.float32)})
    vector = np.random.default_rng(1).standard_normal(spec.num_parameters, np.float32)
    out = np.zeros_like(vector)
    samples: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CODECS}
    sizes = {}
    for _ in range(repetitions):
        for name in CODECS:
            codec = codec_of(name)
            copy_s, warm_s = _seconds(vector.tobytes), _seconds(lambda: np.copyto(out, vector))
            encode_s = _seconds(lambda codec=codec: of_bytes(encode(codec, vector, spec, 1)))
            data = np.frombuffer(b"".join(encode(codec, vector, spec, 1)), np.uint8)
            decode_s = _seconds(
                lambda codec=codec, data=data: list(decode(codec, data, spec, 1, out))
            )
            sizes[name] = len(data)
            samples[name].append((copy_s, warm_s, encode_s, decode_s))
    measured = {}
    for name, taken in samples.items():
        copy_s, warm_s, encode_s, decode_s = map(statistics.median, zip(*taken, strict=True))
        measured[name] = {
            "encode": round(copy_s / encode_s, 3),
            "decode": round(copy_s / decode_s, 3),
            "encode_warm": round(warm_s / encode_s, 3),
            "bytes_ratio": round(vector.nbytes / sizes[name], 2),
        }
    return measured


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
