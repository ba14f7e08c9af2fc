"""Whole runs of the shipped configuration, with eyes on every message."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message

from clients.app import build
from fedagent.client import build_client_app
from fedagent.config import compose, instantiate
from fedagent.simulation import run_simulation

CONF = Path(__file__).parents[3] / "conf"
SMALL = (
    "app=recommendation runtime=inline display=false page=false fleet.num_nodes=6 cohort=3 "
    "local_steps=2 stopping.max_updates=16"
)
FEDBUFF = "strategy=fedbuff scheduler=uniform strategy.buffer_size=2 strategy.evaluate_every=100"


@dataclass
class Witness:
    """Sees what comes to a node and what leaves it, and what the node keeps."""

    arrays: list[tuple[str, np.ndarray]] = field(default_factory=list)
    other_values: list = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    vectors: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def mod(self, message: Message, context: Context, call_next) -> Message:
        self._read(message)
        reply = call_next(message, context)
        self._read(reply)
        self.kinds.add(message.metadata.message_type)
        if "fedagent-private" in context.state:
            kept = context.state.array_records["fedagent-private"]
            assert set(kept) == {"users.vector.weight", "users.bias.weight"}
            vectors = self.vectors.setdefault(context.node_config["partition-id"], [])
            vectors.append(kept["users.vector.weight"].numpy())
        return reply

    def _read(self, message: Message) -> None:
        content = message.content
        for record in content.array_records.values():
            self.arrays += [(name, array.numpy()) for name, array in record.items()]
        for records in (content.metric_records, content.config_records):
            self.other_values += [v for record in records.values() for v in record.values()]


def run(directory: Path, overrides: str, witness: Witness | None = None) -> dict:
    overrides = f"{SMALL} output_dir={directory} {overrides}"
    cfg = compose(overrides, CONF)
    run_simulation(
        "server.app:app",
        build_client_app(build, mods=[witness.mod] if witness else []),
        fleet=instantiate(cfg.fleet),
        seed=1,
        runtime=instantiate(cfg.runtime),
        run_config={"overrides": overrides},
    )
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture(
    scope="module",
    params=[
        f"{FEDBUFF} strategy.fraction_evaluate=1.0",
        "strategy=fedavg strategy.strategy.fraction_evaluate=1.0",
    ],
    ids=["fedbuff", "fedavg"],
)
def seen(request, tmp_path_factory) -> Witness:
    witness = Witness()
    run(tmp_path_factory.mktemp("run"), f"{request.param} stopping.max_updates=40", witness)
    return witness


def test_a_users_vector_is_in_no_message(seen):
    assert seen.kinds == {"train", "evaluate"}
    assert len(seen.vectors) >= 4
    vectors = [v for kept in seen.vectors.values() for v in kept]
    assert all(v.shape == (1, 16) for v in vectors)
    names = {name for name, _ in seen.arrays}
    assert not [name for name in names if "users" in name]
    numbers = np.unique(np.concatenate([v.ravel() for v in vectors]))
    for name, array in seen.arrays:
        assert array.shape != (1, 16), name
        # Two numbers of four bytes may meet by chance; the numbers of a vector do not.
        assert np.isin(array, numbers).sum() < 4, name
    flat = [x for v in seen.other_values for x in (v if isinstance(v, list) else [v])]
    assert not np.isin([x for x in flat if isinstance(x, float)], numbers).any()


def test_a_users_vector_lives_on_and_is_trained(seen):
    moves = [v for kept in seen.vectors.values() for v in pairwise(kept)]
    steps = [np.abs(after - before).max() for before, after in moves if (after != before).any()]
    assert len(steps) >= 4
    # Five steps of Adam at 0.05 move a number by little more than 0.25: it begins where it was.
    assert max(steps) < 0.4


def test_whole_replies_make_the_same_model_with_more_bytes(tmp_path):
    sparse = run(tmp_path / "sparse", FEDBUFF)
    whole = run(tmp_path / "whole", f"{FEDBUFF} client_mods=[]")
    assert sparse["params_sha256"] == whole["params_sha256"]
    assert sparse["dispatches"] == whole["dispatches"]
    assert sparse["bytes_up"] < 0.2 * whole["bytes_up"]
    assert sparse["bytes_down"] == whole["bytes_down"]
