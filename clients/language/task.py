"""Language as a `Task`: every role is a node and keeps its words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.language.alphabet import Alphabet, Characters
from clients.language.baseline import NGrams
from clients.language.data import SHAKESPEARE, Role, Text, cut, load
from clients.language.model import GRU, Transformer
from clients.language.scores import continued, metrics, scores
from clients.language.windows import Scored
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import (
    Metrics,
    Showcase,
    Task,
    check_fractions,
    check_partition_id,
    epochs,
    over_nodes,
)

MODELS = ("gru", "transformer")
_CHARACTERS_PER_TOKEN = 16  # seldom more


@dataclass(frozen=True, eq=False)
class LanguageTask(Task):
    """Tell the next character of what a role says.

    A role's text is cut in its order into training, validation and test, and of the latter two the
    first characters are scored.

    Parameters
    ----------
    model : "gru" or "transformer", see `clients.language.model`.
    dataset : "shakespeare" or a folder of texts, see `clients.language.data`.
    num_partitions : nodes; every so manieth role takes part.
    min_characters : what a role must say to take part, >= 100.
    hidden : width, >= 1; of the transformer a multiple of 4.
    rows : of the GRU's tables of the last characters, >= 0.
    num_layers : of the transformer, >= 1.
    window : characters that a batch's texts have, and the most that is read to score one, >= 2.
    validation_fraction, test_fraction : of a role's characters, above 0, together below 1.
    scored_characters : the first of a role's validation and test that count, >= 1.
    order : n of the n-grams that are the baseline, 1 to 9.
    """

    metric: ClassVar[Metric] = Metric("bits-per-character", "min")
    central: ClassVar[Mapping[str, Any]] = {}

    model: str = "gru"
    dataset: str = SHAKESPEARE
    num_partitions: int = 453
    min_characters: int = 2000
    hidden: int = 128
    rows: int = 4096
    num_layers: int = 2
    window: int = 64
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scored_characters: int = 400
    order: int = 4

    def __post_init__(self) -> None:
        one_of("LanguageTask: model", self.model, MODELS)
        for name, least in (
            ("hidden", 1),
            ("rows", 0),
            ("num_layers", 1),
            ("window", 2),
            ("scored_characters", 1),
            ("min_characters", 100),
        ):
            value = getattr(self, name)
            require(value >= least, f"LanguageTask: {name}={value} must be at least {least}.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @cached_property
    def alphabet(self) -> Alphabet:
        """From text to numbers."""
        return Characters()

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """Who takes part, loaded on first use: evenly chosen, so that all plays have some.

        Raises
        ------
        ConfigurationError
            If there are fewer.
        """
        found = load(self.dataset, self.min_characters)
        require(
            1 <= self.num_partitions <= len(found),
            f"LanguageTask: {self.num_partitions} nodes for {len(found)} roles of at least "
            f"{self.min_characters} characters; set fleet.num_nodes={len(found)} or less.",
        )
        return tuple(
            found[k * len(found) // self.num_partitions] for k in range(self.num_partitions)
        )

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """What each role says, cut."""
        shares = None, self.validation_fraction, self.test_fraction
        return tuple(cut(role.text, shares) for role in self.roles)

    @cached_property
    def training(self) -> tuple[torch.Tensor, ...]:
        """(T,) numbers of what each role trains on."""
        return tuple(self.alphabet.encode(text.train) for text in self.texts)

    @cached_property
    def starts(self) -> tuple[torch.Tensor, ...]:
        """Where in the concatenated training texts a batch's texts may begin, by role."""
        found, begin = [], 0
        for text in self.training:
            found.append(begin + torch.arange(max(1, len(text) - self.window)))
            begin += len(text)
        return tuple(found)

    @cached_property
    def validations(self) -> tuple[Scored, ...]:
        """What is scored of each role's validation text."""
        return tuple(self._scored(text.train, text.validation) for text in self.texts)

    @cached_property
    def tests(self) -> tuple[Scored, ...]:
        """What is scored of each role's test text."""
        return tuple(self._scored(text.train + text.validation, text.test) for text in self.texts)

    def _scored(self, before: str, held_out: str) -> Scored:
        scored = held_out[: self.scored_characters]
        near = before[-_CHARACTERS_PER_TOKEN * self.window :]  # no need to encode what is far
        encode = self.alphabet.encode
        return Scored.of(encode(near), encode(scored), self.window, len(scored))

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        if self.model == "gru":
            return GRU(self.alphabet.size, self.hidden, self.rows)
        return Transformer(self.alphabet.size, self.hidden, self.num_layers, window=self.window)

    def num_examples(self, partition_id: int) -> int:
        """Return how many numbers a role trains on."""
        check_partition_id(partition_id, self.num_partitions)
        return len(self.training[partition_id])

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[tuple[torch.Tensor]]:
        """Yield (B, window + 1) texts that begin anywhere; ``None`` draws from all roles."""
        if partition_id is not None:
            check_partition_id(partition_id, self.num_partitions)
        chosen = slice(None) if partition_id is None else slice(partition_id, partition_id + 1)
        texts = torch.cat(self.training[chosen])
        first = self.starts[chosen][0][0]
        starts = torch.cat(self.starts[chosen]) - first
        for begin in epochs(starts, batch_size):
            places = begin[:, None] + torch.arange(self.window + 1)
            yield (texts[places.clamp(max=len(texts) - 1)],)

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
        """Return the mean cross-entropy of the characters that follow, in nats."""
        (texts,) = batch
        return F.cross_entropy(model(texts[:, :-1]).flatten(0, 1), texts[:, 1:].flatten())

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return bits per character, and as ``top-1`` how often the likeliest was what came.

        Of a role's validation text, or of all test texts: means over the characters, and as
        ``bits-per-character-worst`` the role that is told worst.
        """
        if partition_id is not None:
            return scores(model, device, [self.validations[partition_id]])[0]
        return over_nodes(scores(model, device, self.tests), self.metric)

    def baseline(self) -> Metrics:
        """Return what counting n-grams reaches: of all roles together, of training and validation.

        Of characters, whatever the model's alphabet is.
        """
        encode = Characters().encode
        known = [encode(text.train + text.validation).numpy() for text in self.texts]
        counted = NGrams(known, Characters.size, self.order)
        found = []
        for before, text in zip(known, self.texts, strict=True):
            scored = encode(text.test[: self.scored_characters]).numpy()
            near = np.concatenate([before[-self.order :], scored])
            told = counted.probabilities(near, len(near) - len(scored))
            nats = -np.log(told[np.arange(len(scored)), scored]).sum()
            hits = torch.from_numpy(told.argmax(1) == scored)
            found.append(metrics(float(nats), hits, len(scored)))
        return over_nodes(found, self.metric)

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what the model writes after the words of the role with most to say."""
        speaker = max(range(self.num_partitions), key=lambda k: len(self.roles[k].text))
        role, text = self.roles[speaker], self.texts[speaker]
        before = (text.train + text.validation)[-200:]
        written = continued(model, device, self.alphabet.encode(before), 400, self.window)
        sample = (
            f"{role.name} of {role.play}, whose own words end at the line:\n\n{before}\n----\n"
            f"{self.alphabet.decode(written)}\n"
        )
        return Showcase(texts={"sample": sample})
