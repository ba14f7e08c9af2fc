"""Translation as a `Task`: every book of a bible is a node and keeps its verses."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.translation.baseline import most_similar
from clients.translation.data import ENGLISH_FRENCH, Pairs, load
from clients.translation.metrics import scores
from clients.translation.model import Translator
from clients.translation.vocabulary import BEGIN, PAD, Vocabulary, words
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import (
    Metrics,
    Showcase,
    Task,
    check_fractions,
    check_partition_id,
    cut,
    epochs,
)

_EVALUATION_BATCH_SIZE = 100
_NUM_SHOWN = 24
_ALIKE = 8  # batches that are sorted by length together
_PER_PIECE, _BEYOND = 1.5, 8  # pieces of a translation at most: for each of the source, and more


class Examples(NamedTuple):
    """A batch, int64; shorter sentences are filled up with `PAD`."""

    source: torch.Tensor
    """(B, S)"""
    before: torch.Tensor
    """(B, T) `BEGIN` and the target: what is known before each of its pieces"""
    target: torch.Tensor
    """(B, T) the target and `END`"""


class Split(NamedTuple):
    """The pairs of one node, as (n,) positions in the data that all nodes share."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


@dataclass(frozen=True, eq=False)
class TranslationTask(Task):
    """Translate short sentences.

    Every node cuts its pairs at random into training, validation and test pairs. What stands in a
    test pair on either side and also in a training pair of any node is not tested.

    Parameters
    ----------
    dataset : "en-fr", "en-ja" or the path of a .tsv file, see `clients.translation.data`.
    books : those that take part, by name; None for all.
    num_partitions : nodes; the first that many books take part.
    max_characters : of a sentence that takes part, on either side, >= 1.
    vocabulary_size : pieces of words of both languages, see `clients.translation.vocabulary`.
    width, layers, heads, dropout : of the network, see `clients.translation.model`.
    label_smoothing : share of the target's probability that all pieces share, in [0, 1).
    validation_fraction, test_fraction : of each node's pairs, above 0, together below 1.
    num_validation : pairs with which a node validates, at most, >= 1.
    num_test : pairs with which the server tests, at most, >= 1.
    seed : of the split.
    """

    metric: ClassVar[Metric] = Metric("chrf")
    baseline_name: ClassVar[str] = "translation memory"
    # The nodes' SGD is half of what trains them: the other half is an Adam at the server.
    central: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 0.003}

    dataset: str = ENGLISH_FRENCH
    books: Sequence[str] | None = None
    num_partitions: int = 66
    max_characters: int = 90
    vocabulary_size: int = 3000
    width: int = 128
    layers: int = 1
    heads: int = 4
    dropout: float = 0.1
    label_smoothing: float = 0.1
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    num_validation: int = 8
    num_test: int = 300
    seed: int = 1

    def __post_init__(self) -> None:
        for name, holds, must in (
            ("num_partitions", self.num_partitions >= 1, "be at least 1"),
            ("max_characters", self.max_characters >= 1, "be at least 1"),
            ("layers", self.layers >= 1, "be at least 1"),
            ("heads", self.heads >= 1, "be at least 1"),
            ("width", self.width >= 2, "be at least 2"),
            ("width", self.width % 2 == 0, "be even"),
            ("width", self.width % self.heads == 0, f"be a multiple of heads={self.heads}"),
            ("dropout", 0 <= self.dropout < 1, "lie in [0, 1)"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "lie in [0, 1)"),
            ("num_validation", self.num_validation >= 1, "be at least 1"),
            ("num_test", self.num_test >= 1, "be at least 1"),
        ):
            require(holds, f"TranslationTask: {name}={getattr(self, name)} must {must}.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs of the books that take part, loaded on first use."""
        pairs = load(self.dataset)
        for name in self.books or ():
            one_of("TranslationTask: books", name, pairs.names)
        pairs = pairs.where(self.books or pairs.names, self.max_characters)
        require(
            self.num_partitions <= len(pairs.names),
            f"TranslationTask: {self.num_partitions} nodes, but {len(pairs.names)} books of "
            f"{self.dataset} have sentences of at most {self.max_characters} characters; set "
            f"fleet.num_nodes={len(pairs.names)} or less, or raise app.max_characters.",
        )
        return pairs

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Each node's pairs; its split is the same whoever else takes part."""
        return tuple(self._split(node) for node in range(self.num_partitions))

    def _split(self, node: int) -> Split:
        own, name = np.flatnonzero(self.pairs.nodes == node), self.pairs.names[node]
        require(
            len(own) >= 2,
            f"TranslationTask: {name} has {len(own)} sentence of at most {self.max_characters} "
            "characters; training and validation need one each. Raise app.max_characters, or name "
            "the books that take part: app.books.",
        )
        shuffled = np.random.default_rng([self.seed, *name.encode()]).permutation(own)
        # The test comes first: of two sentences it has none.
        test, validation, train = cut(
            shuffled, (self.test_fraction, self.validation_fraction, None)
        )
        return Split(*map(torch.from_numpy, (train, validation, test)))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The pieces, from the counts that the nodes would send."""
        sides = self.pairs.sources, self.pairs.targets
        counts = [
            words(side[n] for side in sides for n in split.train.tolist()) for split in self.splits
        ]
        return Vocabulary(counts, self.vocabulary_size)

    @cached_property
    def pieces(self) -> tuple[list[list[int]], list[list[int]]]:
        """All sources and all targets in pieces."""
        sources, targets = self.pairs.sources, self.pairs.targets
        return self.vocabulary.encode(sources), self.vocabulary.encode(targets)

    @cached_property
    def test(self) -> torch.Tensor:
        """(n,) positions of the pairs that the server tests with: `num_test` of all nodes'."""
        trained = self._training(None).tolist()
        known = [{side[n] for n in trained} for side in (self.pairs.sources, self.pairs.targets)]
        unseen = [
            n
            for n in torch.cat([split.test for split in self.splits]).tolist()
            if self.pairs.sources[n] not in known[0] and self.pairs.targets[n] not in known[1]
        ]
        require(
            bool(unseen),
            "TranslationTask: there is no test pair that is not also trained on; raise "
            "app.max_characters or app.test_fraction.",
        )
        chosen = np.random.default_rng(self.seed).permutation(unseen)[: self.num_test]
        return torch.from_numpy(chosen)

    def _training(self, partition_id: int | None) -> torch.Tensor:
        if partition_id is None:
            return torch.cat([split.train for split in self.splits])
        check_partition_id(partition_id, self.num_partitions)
        return self.splits[partition_id].train

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return Translator(self.vocabulary_size, self.width, self.layers, self.heads, self.dropout)

    def num_examples(self, partition_id: int) -> int:
        """Return how many pairs a node trains on."""
        return len(self._training(partition_id))

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield batches, epoch after epoch, each in a new order; ``None`` pools the books.

        Sentences of a batch are of similar length: of a few batches' the shortest are one, and so
        on. Padding would double the work. A batch may be a little larger than `batch_size`.
        """
        training = self._training(partition_id)
        for chosen in epochs(training, _ALIKE * batch_size):
            parts = self._by_length(chosen).tensor_split(max(1, len(chosen) // batch_size))
            for part in torch.randperm(len(parts)).tolist():
                yield self.examples(parts[part])

    def examples(self, chosen: torch.Tensor) -> Examples:
        """Return the pairs at (B,) positions."""
        sources, targets = ([side[n] for n in chosen.tolist()] for side in self.pieces)
        before = [[BEGIN, *row[:-1]] for row in targets]
        return Examples(*map(padded, (sources, before, targets)))

    def loss(self, model: nn.Module, batch: Examples) -> torch.Tensor:
        """Return the mean cross-entropy of a piece, with smoothed labels."""
        return _cross_entropy(model, batch, self.label_smoothing)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return chrF and BLEU of greedy translations, and a piece's mean unsmoothed loss."""
        chosen = self._examined(partition_id)
        parts = [
            (float(_cross_entropy(model, batch)), float((batch.target != PAD).sum()))
            for batch in self._evaluated(chosen, device)
        ]
        losses, num_pieces = zip(*parts, strict=True)
        references = [self.pairs.targets[n] for n in chosen.tolist()]
        found = scores(self.translations(model, chosen, device), references)
        return found | {"loss": float(np.average(losses, weights=num_pieces))}

    def _examined(self, partition_id: int | None) -> torch.Tensor:
        """Return the positions of a node's validation pairs or of the test pairs, by length."""
        if partition_id is None:
            return self._by_length(self.test)
        return self._by_length(self.splits[partition_id].validation[: self.num_validation])

    def _by_length(self, chosen: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor([sum(len(side[n]) for side in self.pieces) for n in chosen.tolist()])
        return chosen[lengths.argsort(stable=True)]

    def _evaluated(self, chosen: torch.Tensor, device: torch.device) -> Iterator[Examples]:
        for part in torch.split(chosen, _EVALUATION_BATCH_SIZE):
            yield Examples(*(tensor.to(device) for tensor in self.examples(part)))

    def translations(
        self, model: nn.Module, chosen: torch.Tensor, device: torch.device
    ) -> list[str]:
        """Return what `model` makes of the sources at (n,) positions, in their order."""
        translator: Any = model
        found = []
        for batch in self._evaluated(chosen, device):
            longest = int(_PER_PIECE * batch.source.shape[1]) + _BEYOND
            rows = translator.translate(batch.source, longest)
            found += self.vocabulary.decode(rows.tolist())
        return found

    def baseline(self) -> Metrics:
        """Return the scores of a translation memory of all training pairs.

        It has no probabilities: its ``loss`` is that of who takes all pieces for equally likely.
        """
        trained, chosen = self._training(None).tolist(), self._examined(None).tolist()
        sources, targets = self.pairs.sources, self.pairs.targets
        found = most_similar([sources[n] for n in chosen], [sources[n] for n in trained])
        copied = [targets[trained[k]] for k in found]
        return scores(copied, [targets[n] for n in chosen]) | {
            "loss": math.log(self.vocabulary_size)
        }

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return test sentences with their translations, beside the references."""
        chosen = self.test[:_NUM_SHOWN]
        made = self.translations(model, chosen, device)
        blocks = [
            f"{self.pairs.names[self.pairs.nodes[n]]}\n"
            f"  source       {self.pairs.sources[n]}\n"
            f"  translation  {translation}\n"
            f"  reference    {self.pairs.targets[n]}"
            for n, translation in zip(chosen.tolist(), made, strict=True)
        ]
        return Showcase(texts={"translations": "\n\n".join(blocks) + "\n"})


def _cross_entropy(model: nn.Module, batch: Examples, label_smoothing: float = 0.0) -> torch.Tensor:
    scores_of_pieces = model(batch.source, batch.before)
    return F.cross_entropy(
        scores_of_pieces.flatten(0, 1),
        batch.target.flatten(),
        ignore_index=PAD,
        label_smoothing=label_smoothing,
    )


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return (B, longest) pieces of B rows, filled up with `PAD`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
