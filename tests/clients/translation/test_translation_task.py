import math
from itertools import islice

import pytest
import torch

from clients.translation import TranslationTask
from clients.translation.data import Pairs
from clients.translation.task import Examples, padded
from clients.translation.vocabulary import BEGIN, END, PAD
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from tests.clients.translation.conftest import small

CPU = torch.device("cpu")


def positions_of(split):
    return [set(part.tolist()) for part in split]


def test_every_pair_of_a_node_is_on_exactly_one_side(task):
    for node, split in enumerate(task.splits):
        sides = positions_of(split)
        assert set.union(*sides) == set((task.pairs.nodes == node).nonzero()[0].tolist())
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert [len(side) > 0 for side in sides] == [True] * 3
        assert task.num_examples(node) == len(split.train)


def test_a_books_split_is_its_own_and_follows_the_seed(file):
    both, alone, other = (
        small(file),
        small(file, books=["Genesis"], num_partitions=1),
        small(file, seed=2),
    )

    def held_out(task, book):
        split = task.splits[task.pairs.names.index(book)]
        return {task.pairs.sources[n] for n in split.test.tolist()}

    assert held_out(both, "Genesis") == held_out(alone, "Genesis")
    assert held_out(both, "Genesis") != held_out(other, "Genesis")


def test_a_pair_that_is_also_trained_on_is_not_tested(monkeypatch):
    rows = [("a", f"old {n % 4}", f"alt {n % 4}") for n in range(40)]
    rows += [("b", f"new {n}", f"neu {n}") for n in range(20)]
    monkeypatch.setattr("clients.translation.task.load", lambda _: Pairs.of(rows))
    task = TranslationTask(num_partitions=2, vocabulary_size=290)
    assert {task.pairs.sources[n].split()[0] for n in task.test.tolist()} == {"new"}
    assert len(task.test) == len(task.splits[1].test)
    alike = TranslationTask(num_partitions=1, vocabulary_size=290)
    with pytest.raises(ConfigurationError, match="no test pair that is not also trained on"):
        alike.baseline()


def test_so_many_pairs_are_examined_as_was_asked_for(file):
    task = small(file, num_test=3, num_validation=2)
    model = task.build_model()
    assert task.evaluate(model, CPU)["num-examples"] == 3
    assert task.evaluate(model, CPU, 1)["num-examples"] == 2
    assert torch.equal(task.test, small(file, num_test=3).test)


def test_batches_hold_a_nodes_own_training_pairs_and_say_what_follows_what(task):
    own = {task.pairs.sources[n] for n in task.splits[1].train.tolist()}
    for batch in islice(task.batches(1, 8), 6):
        assert set(task.vocabulary.decode(batch.source.tolist())) <= own
        assert (batch.before[:, 0] == BEGIN).all()
        inside = batch.before[:, 1:] != PAD
        assert torch.equal(batch.before[:, 1:][inside], batch.target[:, :-1][inside])
        assert ((batch.target == END).sum(1) == 1).all()
    pooled = next(task.batches(None, 1000))
    assert len(pooled.source) == task.num_examples(0) + task.num_examples(1)


def test_words_of_held_out_pairs_and_of_one_node_alone_make_no_pieces(file):
    task = small(file)
    held_out = "xylophone" * 3
    for node in (0, 1):
        n = int(task.splits[node].test[0])
        sources = list(task.pairs.sources)
        sources[n] = held_out
        object.__setattr__(task.pairs, "sources", tuple(sources))
    before = small(file).vocabulary.encode(["the red king"])
    assert task.vocabulary.encode(["the red king"]) == before
    assert len(task.vocabulary.encode([held_out])[0]) > len(held_out) / 2


def test_the_measured_loss_is_that_of_a_piece_however_many_sentences_go_together(task, monkeypatch):
    torch.manual_seed(2)
    model = task.build_model()
    found = []
    for size in (1, 7, 100):
        monkeypatch.setattr("clients.translation.task._EVALUATION_BATCH_SIZE", size)
        found.append(task.evaluate(model, CPU)["loss"])
    lengths = {len(task.pieces[1][n]) for n in task.test.tolist()}
    assert len(lengths) > 1
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_padding_does_not_count_in_the_loss(task):
    torch.manual_seed(0)
    model = task.build_model().eval()
    model.requires_grad_(False)
    batch = task.examples(task.splits[0].train[:4])
    longer = Examples(*(torch.cat([t, torch.full((4, 3), PAD)], 1) for t in batch))
    assert float(task.loss(model, longer)) == pytest.approx(
        float(task.loss(model, batch)), rel=1e-5
    )


def test_rows_are_filled_up():
    assert padded([[5], [6, 7]]).tolist() == [[5, PAD], [6, 7]]


def test_the_memory_is_scored_by_hand_on_the_tested_pairs(file, monkeypatch):
    task = small(file)
    monkeypatch.setattr(
        "clients.translation.task.most_similar", lambda queries, memory: [0] * len(queries)
    )
    first = task.pairs.targets[int(task.splits[0].train[0])]
    seen = []
    monkeypatch.setattr(
        "clients.translation.task.scores",
        lambda made, references: seen.append((made, references)) or {},
    )
    assert task.baseline() == {"loss": pytest.approx(math.log(340))}
    ((made, references),) = seen
    assert made == [first] * len(task.test)
    assert sorted(references) == sorted(task.pairs.targets[n] for n in task.test.tolist())


def test_the_network_learns_sentences_that_no_training_pair_holds(file):
    task = small(file, label_smoothing=0.0)
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(optimizer="adam", learning_rate=3e-3, local_steps=200)
    train(task, model, task.batches(None, 32), settings, CPU)
    found, memory = task.evaluate(model, CPU), task.baseline()
    assert found["chrf"] > max(90.0, memory["chrf"])
    assert found["loss"] < 0.5 < memory["loss"]
    shown = task.showcase(model.eval(), CPU).texts["translations"]
    n = int(task.test[0])
    assert shown.count("reference") == shown.count("translation") == len(task.test)
    assert f"source       {task.pairs.sources[n]}\n" in shown
    assert f"reference    {task.pairs.targets[n]}\n" in shown


def test_nodes_and_books_that_do_not_fit_are_refused(file):
    with pytest.raises(ConfigurationError, match=r"fleet\.num_nodes=2 or less"):
        small(file, num_partitions=3).num_examples(0)
    with pytest.raises(ConfigurationError, match=r"3 nodes, but 0 books.*app\.max_characters"):
        small(file, num_partitions=3, max_characters=5).num_examples(0)
    with pytest.raises(ConfigurationError, match=r"books='Genesi'.*Did you mean Genesis"):
        small(file, books=["Genesi"]).num_examples(0)


def test_a_book_of_one_sentence_is_refused_by_name(monkeypatch):
    rows = [("Jude", "Mercy to you.", "Gnade euch."), ("Ruth", "a", "b"), ("Ruth", "c", "d")]
    monkeypatch.setattr("clients.translation.task.load", lambda _: Pairs.of(rows))
    with pytest.raises(ConfigurationError, match=r"Jude has 1 sentence.*app\.books"):
        TranslationTask(num_partitions=2).num_examples(1)
    assert TranslationTask(num_partitions=1, books=["Ruth"]).num_examples(0) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 0},
        {"width": 127},
        {"width": 130, "heads": 4},
        {"dropout": 1.0},
        {"label_smoothing": -0.1},
        {"num_test": 0},
        {"max_characters": 0},
        {"validation_fraction": 0.6, "test_fraction": 0.4},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        TranslationTask(**settings)
