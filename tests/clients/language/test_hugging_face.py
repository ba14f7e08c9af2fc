"""Any causal language model out of a folder; this one is made here, and nothing is downloaded."""

import pytest
import torch

from clients.language import LanguageTask
from fedagent.client import LocalTraining, train
from fedagent.errors import DataUnavailableError

CPU = torch.device("cpu")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory) -> str:
    """A tiny GPT-2 or Llama and a tokenizer of words and spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    said = ["the king and the queen, and all that they would say to the people of the land"] * 3
    tokenizer.train_from_iterator(
        said, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(1)
    if request.param == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        config = transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("adapters", ["none", "lora"])
def test_it_trains_and_is_scored_in_characters(folder, adapters):
    task = LanguageTask(folder, adapters=adapters, num_partitions=4, scored_characters=100)
    torch.manual_seed(2)
    model = task.build_model()
    before = task.evaluate(model, CPU)
    assert before["num-examples"] == 400
    tokens = task.alphabet.encode(task.texts[0].test[:100])
    assert len(tokens) < 100
    assert task.alphabet.decode(tokens.tolist()) == task.texts[0].test[:100]
    assert int(task.tests[0].counts.sum()) == len(tokens)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = LocalTraining("adam", learning_rate=0.02, local_steps=15, batch_size=8)
    train(task, model, task.batches(None, 8), training, CPU)
    after = task.evaluate(model, CPU)
    assert after["bits-per-character"] < before["bits-per-character"]
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, start[n])}
    if adapters == "lora":
        assert changed == {n for n in start if ".lora_B." in n}
        assert changed == set(task.split_state(start)[0])
    else:
        assert len(changed) > 5
        assert set(task.split_state(start)[0]) == set(start)


def test_it_writes(folder):
    task = LanguageTask(folder, num_partitions=2)
    with torch.no_grad():
        sample = task.showcase(task.build_model().eval(), CPU).texts["sample"]
    assert len(sample) > 300


def test_a_folder_without_a_model_is_named(tmp_path):
    task = LanguageTask(str(tmp_path), num_partitions=2)
    with pytest.raises(DataUnavailableError, match=f"{tmp_path} holds no model"):
        task.build_model()
    with pytest.raises(DataUnavailableError, match=f"{tmp_path} holds no tokenizer"):
        _ = task.alphabet
