"""Vocabulary, network, scores and the translation memory."""

from collections import Counter

import pytest
import torch

from clients.translation.baseline import most_similar
from clients.translation.metrics import scores
from clients.translation.model import Translator, positions
from clients.translation.vocabulary import BEGIN, END, PAD, Vocabulary, _lines, words
from fedagent.errors import ConfigurationError


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary([words(["the king sees the dog. 神天地を創造たまへり"])] * 2, 300)


def test_words_are_runs_of_one_script():
    assert words(["God said, God", "神天地を創造たまへり"]) == Counter(
        {"God": 2, "said,": 1, "神天地": 1, "を": 1, "創造": 1, "たまへり": 1}
    )


def test_what_one_node_alone_has_is_not_counted():
    counts = [Counter(a=2, b=1), Counter(a=3, c=9)]
    assert _lines(counts) == ["a\t5"]
    assert _lines(counts[:1]) == ["a\t2", "b\t1"]


@pytest.mark.parametrize("text", ["the king", "神を", "Ωmega 夕"])
def test_any_text_comes_back_even_with_characters_nobody_counted(vocabulary, text):
    (pieces,) = vocabulary.encode([text])
    assert pieces[-1] == END
    assert not {PAD, BEGIN} & set(pieces)
    assert vocabulary.decode([[*pieces, *pieces]]) == [text], "up to the first end"


def test_the_same_counts_make_the_same_vocabulary(vocabulary):
    again = Vocabulary([words(["the king sees the dog. 神天地を創造たまへり"])] * 2, 300)
    assert len(again) == len(vocabulary) == 300
    assert again.encode(["the dog 創造"]) == vocabulary.encode(["the dog 創造"])


def test_too_few_pieces_for_the_characters_are_refused_and_few_words_give_fewer():
    with pytest.raises(ConfigurationError, match=r"of 100 pieces.*app\.vocabulary_size"):
        Vocabulary([words(["the king"])], 100)
    assert 260 < len(Vocabulary([words(["the king"])], 5000)) < 300


@pytest.fixture
def translator():
    torch.manual_seed(0)
    return Translator(50, 16, 2, 2).eval()


def test_scores_know_nothing_of_what_comes_later(translator):
    source, target = torch.tensor([[5, 6, END]]), torch.tensor([[BEGIN, 7, 8, 9]])
    changed = target.clone()
    changed[0, 2:] = 11
    before, after = translator(source, target), translator(source, changed)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-5)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)


def test_order_and_every_piece_of_the_source_count(translator):
    target = torch.tensor([[BEGIN, 7]])
    found = [
        translator(torch.tensor([source]), target)
        for source in ([5, 6, END], [6, 5, END], [5, 9, END])
    ]
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def test_padding_changes_nothing(translator):
    short, long = [5, 6, END], [5, 6, 7, 8, END]
    batch = torch.tensor([[*short, PAD, PAD], long])
    target = torch.tensor([[BEGIN, 9], [BEGIN, 9]])
    alone = translator(torch.tensor([short]), target[:1])
    assert torch.allclose(translator(batch, target)[:1], alone, atol=1e-5)


def test_a_translation_is_the_likeliest_piece_after_each_and_ends(translator):
    source = torch.tensor([[5, 6, END], [8, END, PAD]])
    with torch.no_grad():
        rows = translator.translate(source, 6)
        again = translator(source, torch.cat([torch.full((2, 1), BEGIN), rows], 1)).argmax(-1)
    assert rows.shape[1] <= 6
    for row, likeliest in zip(rows.tolist(), again.tolist(), strict=True):
        length = row.index(END) + 1 if END in row else len(row)
        assert row[:length] == likeliest[:length]
        assert set(row[length:]) <= {PAD}
    with torch.no_grad():
        translator.embedding.weight.zero_()
        translator.embedding.weight[END] = translator.decoder.norm.bias.data.fill_(1.0)
        assert translator.translate(source, 6).tolist() == [[END], [END]]


def test_places_are_sines_and_cosines():
    found = positions(3, torch.zeros(4))
    expected = torch.tensor([2.0, 0.02]).sin().tolist() + torch.tensor([2.0, 0.02]).cos().tolist()
    assert found[2].tolist() == pytest.approx(expected)


def test_a_perfect_translation_has_100_and_words_are_characters_without_spaces():
    assert scores(["God said, Let"], ["God said, Let"])["chrf"] == pytest.approx(100)
    perfect = scores(["神光あれと言"], ["神光あれと言"])
    assert (perfect["bleu"], perfect["num-examples"]) == (pytest.approx(100), 1)
    half = scores(["神光あれと言たまひ", "王"], ["神光あれと言ければ", "王"])
    assert 0 < half["bleu"] < 100
    assert scores(["xyz"], ["abcd"])["chrf"] == pytest.approx(0)


def test_the_memory_finds_the_sentence_with_the_rarest_words_in_common():
    memory = ["the king sees the sea", "the dog hears the king", "The DOG, and the cat"]
    assert most_similar(["a dog and a cat", "the sea", "nothing known"], memory) == [2, 0, 0]
