import math
from itertools import islice

import pytest
import torch
from torch import nn

from clients.language import LanguageTask
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task():
    return LanguageTask(num_partitions=12, hidden=32, rows=512)


class Uniform(nn.Module):
    """Knows nothing."""

    def forward(self, text):
        return torch.zeros(*text.shape, 98)


class Oracle(nn.Module):
    """Has read everything: says what follows, whatever it is asked."""

    def __init__(self, texts):
        super().__init__()
        self.joined = "".join(map(chr, torch.cat(texts)))

    def forward(self, text):
        logits = torch.zeros(*text.shape, 98)
        for row, numbers in enumerate(text):
            at = self.joined.find("".join(map(chr, numbers)))
            follows = torch.tensor([ord(c) for c in self.joined[at + 1 : at + 1 + len(numbers)]])
            logits[row, torch.arange(len(follows)), follows] = 100.0
        return logits


def rows_of(task, batches):
    """Return the texts of three batches, each with what follows its last character."""
    drawn = [pair for batch in islice(batches, 3) for pair in zip(*batch, strict=True)]
    assert all(torch.equal(text[1:], follows[:-1]) for text, follows in drawn)
    whole = [torch.cat([text, follows[-1:]]) for text, follows in drawn]
    return [task.alphabet.decode(text.tolist()) for text in whole]


@pytest.mark.parametrize("node", [None, 3])
def test_bits_are_bits(task, node):
    told = task.evaluate(Uniform(), CPU, node)
    assert told["bits-per-character"] == pytest.approx(math.log2(98), rel=1e-6)
    knows = Oracle([task.alphabet.encode("".join(text) + "\n") for text in task.texts])
    told = task.evaluate(knows, CPU, node)
    assert told["bits-per-character"] == pytest.approx(0, abs=0.02)
    assert told["top-1"] > 0.99


def test_the_first_characters_of_every_test_are_scored(task):
    for text, scored in zip(task.texts, task.tests, strict=True):
        found = torch.empty(400, dtype=torch.int64)
        found[:] = scored.targets[scored.counts]
        assert task.alphabet.decode(found.tolist()) == text.test[:400]
    assert task.evaluate(Uniform(), CPU)["num-examples"] == 12 * 400


def test_nobody_trains_on_what_is_scored(task):
    for node, text in enumerate(task.texts):
        for row in rows_of(task, task.batches(node, 64)):
            assert row in text.train
    assert task.num_examples(4) == len(task.texts[4].train)


def test_pooled_batches_hold_all_roles_and_none_goes_from_one_to_the_next(task):
    trained = [text.train for text in task.texts]
    torch.manual_seed(1)
    rows = rows_of(task, task.batches(None, 64))
    homes = [[row in text for text in trained] for row in rows]
    assert all(map(any, homes))
    assert all(map(any, zip(*homes, strict=True)))


def test_public_plays_are_nobodys_and_warm_up():
    task = LanguageTask(num_partitions=370, public_plays=8)
    private = {role.play for role in task.roles}
    assert len(private) == 30
    said = "\n\n".join(r.text for r in task._all_roles if r.play not in private)
    rows = rows_of(task, task.public_batches(32))
    assert all(row in said for row in rows)
    with pytest.raises(ConfigurationError, match=r"371 nodes for 370 roles .* that are not public"):
        _ = LanguageTask(num_partitions=371, public_plays=8).roles


@pytest.mark.parametrize("model", ["gru", "transformer"])
def test_it_learns(model):
    task = LanguageTask(model, num_partitions=12, hidden=32, rows=512)
    torch.manual_seed(1)
    network = task.build_model()
    before = task.evaluate(network, CPU)["bits-per-character"]
    training = LocalTraining("adam", learning_rate=0.01, local_steps=40, batch_size=16)
    train(task, network, task.batches(None, 16), training, CPU)
    after = task.evaluate(network, CPU)["bits-per-character"]
    assert before > 6.4
    assert after < 4.5


def test_what_it_writes_is_there_to_look_at(task):
    torch.manual_seed(1)
    model = task.build_model().eval()
    with torch.no_grad():
        first, again = (task.showcase(model, CPU).texts["sample"] for _ in range(2))
    assert first == again
    speaker = max(task.roles, key=lambda role: len(role.text))
    assert first.startswith(f"{speaker.name} of {speaker.play}")
    own, written = first.split("\n----\n")
    assert own.split("\n\n", 1)[1] in speaker.text
    assert len(written) == 401


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "lstm"}, "'lstm'"),
        ({"adapters": "dora"}, "'dora'"),
        ({"window": 1}, "window=1 must be at least 2"),
        ({"hidden": 0}, "hidden=0"),
        ({"public_plays": -1}, "public_plays=-1"),
        ({"test_fraction": 0.95}, "together they must stay below 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong, says):
    with pytest.raises(ConfigurationError, match=says):
        LanguageTask(**wrong)


def test_too_many_nodes_are_refused():
    with pytest.raises(ConfigurationError, match="454 nodes for 453 roles"):
        LanguageTask(num_partitions=454).num_examples(0)
