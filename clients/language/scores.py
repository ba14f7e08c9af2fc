"""How well a model tells what follows, and what it writes itself."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clients.language.windows import Scored
from fedagent.tasks import Metrics

_WINDOWS_AT_ONCE = 256


def scores(model: nn.Module, device: torch.device, parts: Sequence[Scored]) -> list[Metrics]:
    """Return bits per character and the share of right first guesses, of each part."""
    sizes = [len(part.inputs) for part in parts]
    nats, hits = (
        torch.cat(found).split(sizes) for found in zip(*_told(model, device, parts), strict=True)
    )
    return [
        metrics(float(nat[part.counts].double().sum()), hit[part.counts], part.num_characters)
        for nat, hit, part in zip(nats, hits, parts, strict=True)
    ]


def metrics(nats: float, hits: torch.Tensor, num_characters: int) -> Metrics:
    """Return the metrics of one text: the sum of its nats, and which guesses were right."""
    return {
        "bits-per-character": nats / math.log(2) / num_characters,
        "top-1": float(hits.double().mean()),
        "num-examples": float(num_characters),
    }


def _told(
    model: nn.Module, device: torch.device, parts: Sequence[Scored]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (n, W) nats, and whether the likeliest number came, of some windows at a time."""
    inputs, targets = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "targets")
    )
    for some in torch.arange(len(inputs)).split(_WINDOWS_AT_ONCE):
        logits, follows = model(inputs[some].to(device)), targets[some].to(device)
        nats = F.cross_entropy(logits.transpose(1, 2), follows, reduction="none")
        yield nats.cpu(), (logits.argmax(-1) == follows).cpu()


def continued(
    model: nn.Module,
    device: torch.device,
    text: torch.Tensor,
    count: int,
    window: int,
    temperature: float = 0.8,
    seed: int = 1,
) -> list[int]:
    """Return `count` numbers that a model writes after a (T,) text, drawn from its own seed.

    Parameters
    ----------
    window : how much of the text it reads, the latest.
    temperature : below 1 the likely becomes likelier, > 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = model(text[-window:].unsqueeze(0).to(device))[0, -1].cpu()
        drawn = torch.multinomial((logits / temperature).softmax(0), 1, generator=generator)
        text = torch.cat([text, drawn])
    return text[-count:].tolist()
