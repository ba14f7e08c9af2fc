"""What was understood: words of a sequence, and the digit of a single recording."""

import torch
import torch.nn.functional as F
from torch import nn

from clients.speech.data import WORDS, Sequences
from clients.speech.model import BLANK
from fedagent.errors import imported


def connectionist_loss(
    log_probabilities: torch.Tensor, lengths: torch.Tensor, batch: Sequences
) -> torch.Tensor:
    """Return minus the log-probability of each sequence's words, (B,).

    Over all ways to place them in time (Graves et al., "Connectionist temporal classification",
    ICML 2006). Computed on the CPU: a few numbers, and CUDA's gradient is not repeatable.

    Parameters
    ----------
    log_probabilities : (T, B, 11), as `Recogniser` returns them.
    lengths : (B,) of them that count.
    batch : what was said.
    """
    return F.ctc_loss(
        log_probabilities.cpu(),
        batch.digits.cpu(),
        lengths.cpu(),
        batch.num_words.cpu(),
        blank=BLANK,
        reduction="none",
    )


def understood(model: nn.Module, batch: Sequences, device: torch.device) -> list[list[int]]:
    """Return the digits of the best path: at every moment the likeliest class, repeats as one."""
    log_probabilities, lengths = model(batch.frames.to(device), batch.lengths.to(device))
    best = log_probabilities.argmax(-1).T.cpu()
    paths = [
        torch.unique_consecutive(row[:length])
        for row, length in zip(best, lengths.tolist(), strict=True)
    ]
    return [path[path != BLANK].tolist() for path in paths]


def likeliest(model: nn.Module, batch: Sequences, device: torch.device) -> torch.Tensor:
    """Return (B,) digits: of the ten sequences of one word the one that explains each best."""
    log_probabilities, lengths = model(batch.frames.to(device), batch.lengths.to(device))
    one_word = batch._replace(num_words=torch.ones_like(batch.num_words))
    losses = [
        connectionist_loss(
            log_probabilities,
            lengths,
            one_word._replace(digits=torch.full((len(batch.frames), 1), digit)),
        )
        for digit in range(len(WORDS))
    ]
    return torch.stack(losses, 1).argmin(1)


def texts(sequences: list[list[int]]) -> list[str]:
    """Return sequences of digits as words."""
    return [" ".join(WORDS[digit] for digit in digits) for digits in sequences]


def word_error_rate(found: list[list[int]], batch: Sequences) -> float:
    """Return how many words must be replaced, removed and inserted, per word that was said."""
    # Imported here because it takes seconds, which a node that only trains need not spend.
    torchmetrics = imported("torchmetrics.functional.text", "fedagent[speech]", "Counting errors")
    return float(torchmetrics.word_error_rate(*map(texts, (found, said(batch)))))


def said(batch: Sequences) -> list[list[int]]:
    """Return the digits that were said."""
    pairs = zip(batch.digits.tolist(), batch.num_words.tolist(), strict=True)
    return [digits[:size] for digits, size in pairs]
