"""Language as a `Task`: every role is a node and keeps its words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.language.alphabet import Alphabet, Characters
from clients.language.baseline import NGrams
from clients.language.data import SHAKESPEARE, Role, Text, cut, load, public_plays
from clients.language.model import GRU, Transformer
from clients.language.pretrained import (
    TRAVELS,
    HuggingFace,
    Tokens,
    add_adapters,
    warm_start,
)
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
ADAPTERS = ("none", "lora")
Texts = tuple[torch.Tensor, torch.Tensor]
_CHARACTERS_PER_TOKEN = 16  # seldom more


@dataclass(frozen=True, eq=False)
class LanguageTask(Task):
    """Tell the next character of what a role says.

    A role's text is cut in its order into training, validation and test, and of the latter two the
    first characters are scored.

    Parameters
    ----------
    model : "gru" or "transformer", see `clients.language.model`; or a folder with a causal language
        model of Hugging Face's and its tokenizer.
    adapters : "none" trains and sends the model, "lora" a small part beside its dense layers, see
        `clients.language.pretrained`.
    rank : of the adapters, >= 1.
    base : file that the model begins with, the model.safetensors of another run; on every node as
        well. None draws the model.
    public_plays : so many plays are nobody's: the server may warm a model up with them, and their
        roles do not take part. 0 to 37.
    dataset : "shakespeare" or a folder of texts, see `clients.language.data`.
    num_partitions : nodes; every so manieth role takes part.
    min_characters : what a role must say to take part, >= 100.
    hidden : width, >= 1; of the transformer a multiple of 4.
    rows : of the tables of the last 2, 3 and 4 characters, >= 0.
    num_layers : of the transformer, >= 1.
    window : characters that a batch's texts have, and the most that is read to score one, >= 2.
    validation_fraction, test_fraction : of a role's characters, above 0, together below 1.
    scored_characters : the first of a role's validation and test that count, >= 1.
    order : n of the n-grams that are the baseline, 1 to 9.
    seed : of what is at rest beside adapters: A, and without `base` the model.
    """

    metric: ClassVar[Metric] = Metric("bits-per-character", "min")
    baseline_name: ClassVar[str] = "counted n-grams"
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
    adapters: str = "none"
    rank: int = 8
    base: str | None = None
    public_plays: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if not Path(self.model).is_dir():
            one_of("LanguageTask: model (that is no folder)", self.model, MODELS)
        one_of("LanguageTask: adapters", self.adapters, ADAPTERS)
        for name, least in (
            ("hidden", 1),
            ("rows", 0),
            ("num_layers", 1),
            ("window", 2),
            ("scored_characters", 1),
            ("min_characters", 100),
            ("rank", 1),
            ("public_plays", 0),
        ):
            value = getattr(self, name)
            require(value >= least, f"LanguageTask: {name}={value} must be at least {least}.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @property
    def shared(self) -> Sequence[str]:  # type: ignore[override]
        """All of the model, or its adapters."""
        return TRAVELS if self.adapters == "lora" else ("*",)

    @cached_property
    def alphabet(self) -> Alphabet:
        """From text to numbers, read on first use."""
        return Characters() if self.model in MODELS else Tokens(self.model)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """Who takes part, loaded on first use: evenly chosen, so that all plays have some.

        Raises
        ------
        ConfigurationError
            If there are fewer.
        """
        given = public_plays(self._all_roles, self.public_plays)
        found = [role for role in self._all_roles if role.play not in given]
        require(
            1 <= self.num_partitions <= len(found),
            f"LanguageTask: {self.num_partitions} nodes for {len(found)} roles of at least "
            f"{self.min_characters} characters that are not public; set fleet.num_nodes="
            f"{len(found)} or less.",
        )
        return tuple(
            found[k * len(found) // self.num_partitions] for k in range(self.num_partitions)
        )

    @property
    def _all_roles(self) -> tuple[Role, ...]:
        return load(self.dataset, self.min_characters)

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
        """Return a network: fresh, warm, or with adapters beside what is at rest.

        With adapters `seed` decides all of it, as what is at rest is drawn where it is needed.
        """
        if self.adapters == "none":
            return self._network()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self._network()
            add_adapters(network, self.rank)
        return network

    def _network(self) -> nn.Module:
        network: nn.Module
        if self.model == "gru":
            network = GRU(self.alphabet.size, self.hidden, self.rows)
        elif self.model == "transformer":
            network = Transformer(
                self.alphabet.size,
                self.hidden,
                self.rows,
                self.num_layers,
                window=self.window,
            )
        else:
            network = HuggingFace(self.model)
        if self.base is not None:
            warm_start(network, self.base)
        return network

    def num_examples(self, partition_id: int) -> int:
        """Return how many characters, or tokens, a role trains on."""
        check_partition_id(partition_id, self.num_partitions)
        return len(self.training[partition_id])

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Texts]:
        """Yield texts that begin anywhere, and what follows; ``None`` draws from all roles.

        Both (B, window), the second one number later.
        """
        if partition_id is None:
            return self._batches(self.training, batch_size)
        check_partition_id(partition_id, self.num_partitions)
        return self._batches([self.training[partition_id]], batch_size)

    def public_batches(self, batch_size: int) -> Iterator[Texts]:
        """Yield the same of the plays that are public; where none are, of all roles."""
        if not self.public_plays:
            return self.batches(None, batch_size)
        given = public_plays(self._all_roles, self.public_plays)
        texts = [role.text for role in self._all_roles if role.play in given]
        return self._batches([self.alphabet.encode(text) for text in texts], batch_size)

    def _batches(self, texts: Sequence[torch.Tensor], batch_size: int) -> Iterator[Texts]:
        """Yield batches that do not go from one text to the next, unless a text is too short."""
        ends = torch.tensor([len(text) for text in texts]).cumsum(0).tolist()
        starts = torch.cat(
            [
                torch.arange(end - len(text), max(end - self.window, end - len(text) + 1))
                for text, end in zip(texts, ends, strict=True)
            ]
        )
        joined = torch.cat(list(texts))
        for begin in epochs(starts, batch_size):
            places = begin[:, None] + torch.arange(self.window + 1)
            drawn = joined[places.clamp(max=len(joined) - 1)]
            yield drawn[:, :-1], drawn[:, 1:]

    def loss(self, model: nn.Module, batch: Texts) -> torch.Tensor:
        """Return the mean cross-entropy of the characters that follow, in nats."""
        texts, follows = batch
        return F.cross_entropy(model(texts).flatten(0, 1), follows.flatten())

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
