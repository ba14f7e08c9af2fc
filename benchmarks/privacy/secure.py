"""What a secure sum costs a node and the proxy, for each update."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.machine import print_result
from fedagent.arrays import NDArray
from fedagent.privacy.secure import Gathering, Member, Stage
from fedagent.proxy.secure import SecureAggregation
from fedagent.wire.records import to_record

SIZES = ((10, 100_000), (10, 1_000_000), (20, 1_000_000), (50, 1_000_000))
"""K and P."""
VANISH = 0.3


def num_bytes(arrays: Mapping[str, NDArray]) -> int:
    """Return what arrays take in a message."""
    return sum(len(array.data) for array in to_record(arrays).values())


def summed(number: int, num_params: int, vanish: float) -> dict[str, float]:
    """Do a sum of `number` members, a share of whom vanishes after it was admitted.

    Returns
    -------
    Bytes and processor seconds of a member that stays, and processor seconds of the proxy over the
    updates in the sum.
    """
    secure, generator = SecureAggregation(), np.random.default_rng(1)
    spent: Counter[str] = Counter()

    def timed(who: str, work: Any, *arguments: Any) -> Any:
        begin_s = time.process_time()
        result = work(*arguments)
        spent[who] += time.process_time() - begin_s
        return result

    changes = generator.normal(0.0, 0.01, (number, num_params)).astype(np.float32)
    members = {i: timed("node_s", Member, change) for i, change in enumerate(changes)}
    keys = {i: timed("node_s", lambda m=m: m.public_keys) for i, m in members.items()}
    needed = secure.members_needed(number)
    announced = {i: key.tobytes() for i, key in keys.items()}
    gathering = Gathering(announced, needed, secure.limit, num_params)
    stays = range(round(vanish * number), number)
    last, up, down = number - 1, num_bytes({"keys": keys[0]}), 0
    while gathering.outcome is None:
        for i in list(gathering.awaited):
            question = gathering.question(i)
            if i not in stays and gathering.stage is not Stage.SHARE:
                gathering.lose(i)
                continue
            answer = timed("node_s", members[i].answer, question)
            if i == last:
                down += num_bytes(question.arrays)
                up += num_bytes(answer)
            timed("proxy_s", gathering.answer, i, answer)
        timed("proxy_s", gathering.advance)
    exact = changes[stays.start :].astype(np.float64).sum(axis=0)
    return {
        "bytes_up": up,
        "bytes_down": down,
        "node_s": spent["node_s"] / number,
        "proxy_s": spent["proxy_s"] / len(stays),
        "largest_error": float(np.abs(gathering.outcome.total - exact).max()),
    }


def measure() -> None:
    """Print a table and the result."""
    found: dict[str, Any] = {}
    print(
        "| K | P | vanish | bytes up, less the update's | bytes down | node, s | proxy, s | error |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    for number, num_params in SIZES:
        for vanish in (0.0, VANISH):
            cost = summed(number, num_params, vanish)
            more = cost["bytes_up"] - 4 * num_params
            print(
                f"| {number} | {num_params:,} | {vanish:.0%} | {more:,.0f} | "
                f"{cost['bytes_down']:,.0f} | {cost['node_s']:.3f} | {cost['proxy_s']:.3f} | "
                f"{cost['largest_error']:.1e} |",
                flush=True,
            )
            name = f"{number}_{num_params}_{vanish:g}"
            found |= {f"{key}_{name}": value for key, value in cost.items()}
    print_result("secure_sums", found, vanish=VANISH)
