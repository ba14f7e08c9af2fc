"""Connected spoken digits as a `Task`: every speaker is a node and keeps its voice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from clients.speech.baseline import ALONE, train_alone
from clients.speech.data import HELD_OUT, SPEAKERS, Recordings, Sequences, load
from clients.speech.metrics import connectionist_loss, likeliest, understood, word_error_rate
from clients.speech.model import MODELS, Recogniser
from clients.speech.sequences import composed, drawn, joined
from clients.speech.showcase import confusion, transcript
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Task, check_partition_id, over_nodes

_MOST_PER_SPEAKER = len(HELD_OUT["test"])


class Split(NamedTuple):
    """The recordings of one node, as positions in all of them."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


@dataclass(frozen=True, eq=False)
class SpeechTask(Task):
    """Write down the digits that a speaker says one after the other.

    A sequence joins recordings of one speaker: to train, recordings drawn at random; to validate
    and to test, held-out ones, always the same. The metric is the word accuracy, 1 minus the word
    error rate, or 0 if there are more errors than words.

    Parameters
    ----------
    model : "conv" or "gru", see `clients.speech.model`.
    num_partitions : nodes. Up to 6: the first that many speakers take part. Or 12, 18, 24 or 30:
        node k has a part of what speaker k mod 6 said.
    hidden : width of the network, >= 1.
    shortest, longest : words of a sequence, 1 <= shortest <= longest.
    """

    metric: ClassVar[Metric] = Metric("word-accuracy")
    baseline_name: ClassVar[str] = "each alone"
    central: ClassVar[Mapping[str, Any]] = {}

    model: str = "conv"
    num_partitions: int = 6
    hidden: int = 48
    shortest: int = 3
    longest: int = 7

    def __post_init__(self) -> None:
        one_of("SpeechTask: model", self.model, MODELS)
        require(self.hidden >= 1, f"SpeechTask: hidden={self.hidden} must be at least 1.")
        require(
            1 <= self.shortest <= self.longest,
            f"SpeechTask: shortest={self.shortest} and longest={self.longest} cannot work: a "
            "sequence has at least one word, and the longest at least as many as the shortest.",
        )
        most = _MOST_PER_SPEAKER * len(SPEAKERS)
        require(
            1 <= self.num_partitions <= len(SPEAKERS)
            or self.num_partitions in range(len(SPEAKERS), most + 1, len(SPEAKERS)),
            f"SpeechTask: {self.num_partitions} nodes cannot share six speakers equally; set "
            f"fleet.num_nodes to 6 or less, or to a multiple of 6 up to {most}.",
        )

    @property
    def num_words(self) -> range:
        """How many words a sequence may have."""
        return range(self.shortest, self.longest + 1)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of those who take part."""
        return SPEAKERS[: self.num_partitions]

    @cached_property
    def recordings(self) -> Recordings:
        """All recordings, loaded on first use."""
        return load()

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Each node's recordings. Those of a speaker go round his nodes by their numbers."""
        count = len(self.speakers)
        per_speaker = self.num_partitions // count
        numbers = self.recordings.numbers
        node = self.recordings.speakers + count * (numbers % per_speaker)
        held_out = {
            part: torch.isin(numbers, torch.tensor(which)) for part, which in HELD_OUT.items()
        }
        held_out["train"] = ~torch.stack(list(held_out.values())).any(0)
        return tuple(
            Split(*(torch.where((node == k) & held_out[part])[0] for part in Split._fields))
            for k in range(self.num_partitions)
        )

    @cached_property
    def frames(self) -> tuple[torch.Tensor, ...]:
        """All recordings, each standardised by the frames that its node trains on."""
        found = list(self.recordings.frames)
        for split in self.splits:
            deviation, mean = torch.std_mean(torch.cat([found[p] for p in split.train]), 0)
            for position in torch.cat(split).tolist():
                found[position] = (found[position] - mean) / deviation
        return tuple(found)

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return Recogniser(self.model, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return how many recordings a node trains on."""
        check_partition_id(partition_id, self.num_partitions)
        return len(self.splits[partition_id].train)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Sequences]:
        """Yield sequences drawn at random, at most as many as there are recordings.

        ``None`` draws a node for each sequence.
        """
        if partition_id is not None:
            check_partition_id(partition_id, self.num_partitions)
        chosen = self.splits if partition_id is None else self.splits[partition_id:][:1]
        positions = [split.train for split in chosen]
        size = min(batch_size, sum(map(len, positions)))
        while True:
            yield self._join(drawn(positions, size, self.num_words))

    def _join(self, sequences: Sequence[Sequence[int]]) -> Sequences:
        return joined(self.frames, self.recordings.digits, sequences)

    def loss(self, model: nn.Module, batch: Sequences) -> torch.Tensor:
        """Return the mean over sequences of the connectionist loss per word."""
        losses = connectionist_loss(*model(batch.frames, batch.lengths), batch)
        return (losses / batch.num_words.cpu()).mean()

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return word accuracy and error rate of sequences, and the accuracy on single recordings.

        Of a node's validation recordings, or means over all speakers' tests, each counting the
        same. The test also has ``word-accuracy-george`` and so on, and of both accuracies that of
        the speaker it is worst for. ``num-examples`` are the words of the sequences.
        """
        if partition_id is not None:
            return self._of_node(model, device, partition_id, "validation")
        nodes = [self._of_node(model, device, k, "test") for k in range(self.num_partitions)]
        count = len(self.speakers)
        speakers = [over_nodes(nodes[k::count], self.metric) for k in range(count)]
        key = self.metric.name
        return over_nodes(speakers, self.metric, "equal") | {
            "accuracy-worst": min(speaker["accuracy"] for speaker in speakers),
            **{
                f"{key}-{name}": own[key] for name, own in zip(self.speakers, speakers, strict=True)
            },
        }

    def examined(self, node: int, part: str) -> tuple[Sequences, Sequences]:
        """Return the sequences of a node's "validation" or "test" recordings, and single ones."""
        positions = getattr(self.splits[node], part)
        sequences = composed(positions, self.num_words, (node, len(part)))
        return self._join(sequences), self._join([[position] for position in positions.tolist()])

    def _of_node(self, model: nn.Module, device: torch.device, node: int, part: str) -> Metrics:
        sequences, single = self.examined(node, part)
        is_right = likeliest(model, single, device) == single.digits[:, 0]
        error_rate = word_error_rate(understood(model, sequences, device), sequences)
        return {
            "word-accuracy": max(0.0, 1 - error_rate),
            "word-error-rate": error_rate,
            "accuracy": float(is_right.double().mean()),
            "num-examples": float(sequences.num_words.sum()),
        }

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what was said beside what was understood, and which digits are taken for which."""
        spoken, heard, lines = [], [], []
        for node in range(self.num_partitions):
            sequences, single = self.examined(node, "test")
            spoken.append(single.digits[:, 0])
            heard.append(likeliest(model, single, device))
            name, found = (
                self.speakers[node % len(self.speakers)],
                understood(model, sequences, device),
            )
            lines.append(transcript(name, sequences, found))
        figure = confusion(torch.cat(spoken), torch.cat(heard))
        return Showcase({"digits": figure}, {"sequences": "\n".join(lines)})

    def baseline(self, steps: int = ALONE.local_steps) -> Metrics:
        """Return what models reach that each learned from one node alone: the means.

        Each is tested on all speakers, as in `evaluate`.
        """
        found = []
        with torch.random.fork_rng(devices=[]):
            for node in range(len(self.speakers)):
                torch.manual_seed(node)
                model = self.build_model()
                train_alone(self, model, node, replace(ALONE, local_steps=steps))
                found.append(self.evaluate(model, torch.device("cpu")))
        return {name: fmean(metrics[name] for metrics in found) for name in found[0]}
