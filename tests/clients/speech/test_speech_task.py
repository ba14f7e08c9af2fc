import numpy as np
import pytest
import torch
from torch import nn

from clients.speech import SpeechTask
from clients.speech.data import SPEAKERS, WORDS, load
from clients.speech.metrics import likeliest, understood, word_error_rate
from clients.speech.model import BLANK, Recogniser
from clients.speech.sequences import composed, joined
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.tasks import Package

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task():
    return SpeechTask(hidden=16)


class Hears(nn.Module):
    """Is certain of these classes, vector after vector, whatever it hears."""

    def __init__(self, *classes):
        super().__init__()
        self.classes = torch.tensor(classes)

    def forward(self, frames, lengths):
        sure = torch.nn.functional.one_hot(self.classes, len(WORDS) + 1).float()
        logits = (20 * sure).unsqueeze(1).expand(-1, len(frames), -1)
        return logits.log_softmax(-1), torch.full((len(frames),), len(self.classes))


def test_every_speaker_said_every_digit_fifty_times_and_the_first_five_are_the_test(task):
    recordings = task.recordings
    assert len(recordings.frames) == 3000
    for node, split in enumerate(task.splits):
        assert (recordings.speakers[torch.cat(split)] == node).all()
        assert recordings.numbers[split.test].max() == 4
        assert set(recordings.numbers[split.validation].tolist()) == {5, 6, 7, 8, 9}
        assert [len(part) for part in split] == [400, 50, 50]
        assert torch.bincount(recordings.digits[split.test]).tolist() == [5] * 10
    assert len(torch.cat([torch.cat(split) for split in task.splits]).unique()) == 3000


def test_more_nodes_share_what_a_speaker_said(task):
    shared = SpeechTask(num_partitions=12)
    for speaker in range(6):
        mine, other = shared.splits[speaker], shared.splits[speaker + 6]
        for part in ("train", "validation", "test"):
            both = torch.cat([getattr(mine, part), getattr(other, part)]).sort().values
            assert torch.equal(both, getattr(task.splits[speaker], part))


def test_fewer_nodes_are_the_first_speakers(task):
    two = SpeechTask(num_partitions=2, hidden=8)
    assert [len(split.train) for split in two.splits] == [400, 400]
    assert torch.equal(two.splits[1].test, task.splits[1].test)
    found = two.evaluate(Hears(3), CPU)
    assert "word-accuracy-jackson" in found
    assert "word-accuracy-lucas" not in found


def test_a_node_standardises_by_what_it_trains_on_and_by_nothing_else(task):
    split = task.splits[2]
    own = torch.cat([task.frames[p] for p in split.train])
    assert torch.allclose(own.mean(0), torch.zeros(13), atol=1e-3)
    assert torch.allclose(own.std(0), torch.ones(13), atol=1e-3)
    raw = torch.cat([task.recordings.frames[p] for p in split.train])
    test = split.test[0]
    expected = (task.recordings.frames[test] - raw.mean(0)) / raw.std(0)
    assert torch.allclose(task.frames[test], expected, atol=1e-4)


def test_a_training_batch_joins_what_its_node_trains_on(task):
    torch.manual_seed(0)
    batch = next(task.batches(4, 8))
    own = {task.frames[p].numpy().tobytes() for p in task.splits[4].train}
    assert all(3 <= words <= 7 for words in batch.num_words.tolist())
    for row, length, words in zip(*batch[:2], batch.num_words, strict=True):
        rest, found = row[: int(length)], 0
        while len(rest):
            sizes = [n for n in range(1, len(rest) + 1) if rest[:n].numpy().tobytes() in own]
            assert sizes, "a recording of the node's training begins here"
            rest, found = rest[sizes[0] :], found + 1
        assert found == words


def test_the_examination_is_always_the_same_and_hears_every_recording_four_times():
    positions = torch.arange(100, 150)
    one, again = (composed(positions, range(3, 8), (0, 4)) for _ in range(2))
    assert one == again != composed(positions, range(3, 8), (1, 4))
    assert np.unique(np.concatenate(one), return_counts=True)[1].tolist() == [4] * 50
    assert [len(sequence) for sequence in one[:6]] == [3, 4, 5, 6, 7, 3]


def test_joined_recordings_stand_one_after_the_other():
    frames = [torch.full((n, 13), float(n)) for n in (1, 2, 3)]
    batch = joined(frames, torch.tensor([7, 8, 9]), [[2, 0], [1]])
    assert batch.frames[:, :, 0].tolist() == [[3, 3, 3, 1], [2, 2, 0, 0]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.digits.tolist() == [[9, 7], [8, 0]]
    assert batch.num_words.tolist() == [2, 1]


def test_repeats_are_one_word_unless_something_lies_between(task):
    _, single = task.examined(0, "test")
    model = Hears(3, 3, BLANK, 3, 1, BLANK, BLANK)
    assert understood(model, single, CPU)[0] == [3, 3, 1]
    assert set(likeliest(Hears(BLANK, 6, 6), single, CPU).tolist()) == {6}


def test_errors_are_counted_per_word_that_was_said():
    frames = [torch.zeros(1, 13)] * 3
    batch = joined(frames, torch.tensor([1, 2, 3]), [[0, 1, 2], [2]])
    assert word_error_rate([[1, 2, 3], [3]], batch) == 0.0
    assert word_error_rate([[1, 3], [3, 3]], batch) == pytest.approx(2 / 4)


@pytest.mark.parametrize("kind", ["conv", "gru"])
def test_what_stands_behind_a_sequence_changes_nothing(kind, task):
    torch.manual_seed(3)
    model = Recogniser(kind, 8).eval()
    sequences, _ = task.examined(1, "test")
    together, lengths = model(sequences.frames, sequences.lengths)
    for row in (0, 4):
        size = int(sequences.lengths[row])
        alone, own = model(sequences.frames[row : row + 1, :size], sequences.lengths[row : row + 1])
        assert int(own) == int(lengths[row]) == len(alone)
        assert torch.allclose(alone[:, 0], together[: int(own), row], atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "gru"])
def test_the_network_learns(kind):
    task = SpeechTask(kind, hidden=24)
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(optimizer="adam", learning_rate=0.01, local_steps=90)
    train(task, model, task.batches(0, 8), settings, CPU)
    assert task.evaluate(model, CPU, 0)["accuracy"] > 0.4, "chance is a tenth"


def test_the_test_metric_is_the_mean_of_the_speakers_and_names_the_worst(task):
    found = task.evaluate(Hears(3), CPU)
    shares = [found[f"word-accuracy-{name}"] for name in SPEAKERS]
    assert found["word-accuracy"] == pytest.approx(np.mean(shares))
    assert found["word-error-rate"] == pytest.approx(1 - found["word-accuracy"])
    assert found["word-accuracy-worst"] == min(shares)
    assert found["accuracy"] == pytest.approx(0.1)
    assert found["accuracy-worst"] == pytest.approx(0.1)
    assert found["num-examples"] == 6 * 200


def test_the_showcase_shows_what_was_said_and_what_was_understood(task):
    shown = task.showcase(Hears(3).eval(), CPU)
    text = shown.texts["sequences"]
    assert all(name in text for name in SPEAKERS)
    assert text.count("  understood  three   <- wrong") == 6 * 5
    (axes,) = shown.figures["digits"].axes
    counts = axes.images[0].get_array()
    assert counts[:, 3].tolist() == [30] * 10
    assert counts.sum() == 300


def test_a_file_with_other_rows_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "digits.npz"
    np.savez(path, X=np.zeros((6000, 13)), y=np.zeros(3000, int), lengths=np.full(3000, 2))
    monkeypatch.setattr(Package, "path", lambda *_: path)
    with pytest.raises(DataUnavailableError, match=r"digits\.npz does not hold") as raised:
        load.__wrapped__()
    assert 'pip install "fedagent[speech]"' in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model": "lstm"}, "model"),
        ({"hidden": 0}, "hidden"),
        ({"shortest": 0}, "shortest"),
        ({"shortest": 5, "longest": 4}, "longest"),
        ({"num_partitions": 0}, "num_nodes"),
        ({"num_partitions": 7}, "num_nodes"),
        ({"num_partitions": 36}, "num_nodes"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings, name):
    with pytest.raises(ConfigurationError, match=name):
        SpeechTask(**settings)
