"""Adapters: what is trained, what travels, and that a mean of them is exact."""

import json
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from safetensors.torch import load_file

from clients.app import build
from clients.language import LanguageTask
from fedagent.client import LocalTraining, build_client_app, train
from fedagent.config import compose, instantiate
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.simulation import run_simulation

CONF = Path(__file__).parents[3] / "conf"
CPU = torch.device("cpu")
SMALL = {"hidden": 16, "num_layers": 1, "rows": 64}
WORDS = (
    "app=language app.model=transformer app.hidden=16 app.num_layers=1 app.rows=64 "
    "app.public_plays=2 fleet.num_nodes=6 app.num_partitions=6 concurrency=3 local_steps=2 "
    "buffer_size=2 client.batch_size=4 runtime=inline display=false page=false"
)


def run(folder: Path, overrides: str, mods=()) -> dict:
    overrides = f"{WORDS} output_dir={folder} {overrides}"
    run_simulation(
        "server.app:app",
        build_client_app(build, mods=list(mods)),
        fleet=instantiate(compose(overrides, CONF).fleet),
        seed=1,
        run_config={"overrides": overrides},
    )
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A model that was warmed up on public plays, as a run writes it."""
    folder = tmp_path_factory.mktemp("base")
    run(folder, "pretrain_steps=5 learning_rate=0.01 stopping.max_updates=0")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def seen(base, tmp_path_factory):
    """What was in the messages of a run with adapters, and what the run wrote."""
    arrays, kinds, states = [], set(), set()

    def witness(message: Message, context: Context, call_next) -> Message:
        reply = call_next(message, context)
        for one in (message, reply):
            for record in one.content.array_records.values():
                arrays.extend((name, array.numpy().copy()) for name, array in record.items())
            kinds.add(one.metadata.message_type)
        states.update(context.state)
        return reply

    folder = tmp_path_factory.mktemp("adapters")
    summary = run(
        folder,
        f"app.adapters=lora app.base={base} learning_rate=0.01 stopping.max_updates=12 "
        "strategy.fraction_evaluate=1.0",
        [witness],
    )
    return arrays, kinds, states, summary, folder


def test_only_adapters_are_in_the_messages_of_a_run(seen):
    arrays, kinds, states, summary, _ = seen
    assert kinds == {"train", "evaluate"}
    assert len(arrays) > 2 * 12 * 4
    layers = ("attention", "mix", "dense1", "dense2")
    assert {name for name, _ in arrays} == {
        f"blocks.0.{layer}.lora_B.default.weight" for layer in layers
    }
    assert {array.shape for _, array in arrays} == {(48, 8), (16, 8), (64, 8)}
    assert not states  # nor does a node keep anything
    assert summary["num_updates"] == 12


def test_what_they_learnt_is_all_that_the_run_writes(seen):
    written = load_file(seen[-1] / "model.safetensors")
    assert all(".lora_B." in name for name in written)
    assert all(array.abs().max() > 0 for array in written.values())


def test_the_base_is_at_rest_and_the_same_wherever_it_is_built(base):
    task = LanguageTask("transformer", adapters="lora", base=str(base), num_partitions=6, **SMALL)
    torch.manual_seed(1)
    model, state = task.build_model(), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    other = task.build_model().state_dict()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(start[name], other[name]) for name in start)
    warm = load_file(base)
    assert torch.equal(start["blocks.0.mix.base_layer.weight"], warm["blocks.0.mix.weight"])

    train(task, model, task.batches(0, 4), LocalTraining("adam", 0.01, 3), CPU)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, start[n])}
    assert changed == set(task.split_state(start)[0])


def test_a_model_with_fresh_adapters_says_what_its_base_says(base):
    words = {"base": str(base), "num_partitions": 6, **SMALL}
    plain = LanguageTask("transformer", **words)
    adapted = LanguageTask("transformer", adapters="lora", **words)
    told = [task.evaluate(task.build_model(), CPU) for task in (plain, adapted)]
    assert told[0] == pytest.approx(told[1])


def test_a_mean_of_adapters_is_the_mean_of_what_they_change():
    """Not so if A were trained as well: a mean of products is no product of means."""
    task = LanguageTask("transformer", adapters="lora", num_partitions=6, **SMALL)
    model = task.build_model()
    name = "blocks.0.mix"
    layer = model.get_submodule(name)
    torch.manual_seed(3)
    trained = [torch.randn(16, 8) for _ in range(3)]

    def change(weights):
        with torch.no_grad():
            layer.lora_B["default"].weight.copy_(weights)
        return layer.get_delta_weight("default").detach().clone()

    together = change(torch.stack(trained).mean(0))
    assert torch.allclose(together, torch.stack([change(b) for b in trained]).mean(0), atol=1e-6)
    # Of a late update the difference counts, and it is the same wherever it is added.
    late = change(trained[0] + (trained[2] - trained[1])) - change(trained[0])
    assert torch.allclose(late, change(trained[2]) - change(trained[1]), atol=1e-5)


def test_a_recurrent_model_has_no_layers_for_adapters():
    with pytest.raises(ConfigurationError, match="a GRU has no dense layers"):
        LanguageTask("gru", adapters="lora", num_partitions=6).build_model()


def test_a_base_that_is_not_there_or_of_another_model_is_named(base, tmp_path):
    with pytest.raises(DataUnavailableError, match=f"{tmp_path / 'none'} is no file: app.base"):
        LanguageTask("transformer", base=str(tmp_path / "none")).build_model()
    with pytest.raises(ConfigurationError, match=r"does not hold this model .* app\.hidden"):
        LanguageTask("transformer", base=str(base), hidden=32).build_model()
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ConfigurationError, match="does not hold this model"):
        LanguageTask("transformer", base=str(tmp_path / "text"), **SMALL).build_model()
