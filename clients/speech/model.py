"""The networks of the application. Shape legend: B sequences, F frames, T = F / 2, H wide.

    both   convolution (width 5, every second frame) - ReLU: a vector for two frames
    gru    a bidirectional GRU over these
    conv   four convolutions over these (width 5, dilated 1, 2, 4 and 1), each added to its input
    then   per vector the log-probabilities of ten digits and of no digit

What stands behind the end of a sequence never changes what is said about it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clients.speech.data import NUM_COEFFICIENTS, WORDS

MODELS = ("gru", "conv")
BLANK = len(WORDS)
"""Class of a frame at which no digit is told."""


class Recogniser(nn.Module):
    """Tells at which frames which digit is recognised.

    Parameters
    ----------
    kind : one of `MODELS`.
    hidden : H, >= 1.
    """

    def __init__(self, kind: str = "conv", hidden: int = 48) -> None:
        super().__init__()
        self.halve = nn.Conv1d(NUM_COEFFICIENTS, hidden, 5, stride=2, padding=2)
        self.encoder = GRU(hidden) if kind == "gru" else Convolutions(hidden)
        self.classify = nn.Linear(self.encoder.width, len(WORDS) + 1)

    def forward(
        self, frames: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (T, B, 11) log-probabilities and the (B,) lengths that count.

        Parameters
        ----------
        frames : (B, F, C), zeros behind the end of a sequence.
        lengths : (B,) frames of each.
        """
        lengths = (lengths + 1) // 2
        x = F.relu(self.halve(frames.transpose(1, 2)))
        logits = self.classify(self.encoder(x, lengths))
        return F.log_softmax(logits, -1).transpose(0, 1), lengths


class GRU(nn.Module):
    """A GRU that reads in both directions."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.width = 2 * hidden

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (B, T, width) from (B, H, T)."""
        packed = pack_padded_sequence(
            x.transpose(1, 2), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=x.shape[2]
        )
        return states


class Convolutions(nn.Module):
    """Convolutions that reach 16 vectors to each side: more than a word."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2 * dilation, dilation=dilation)
            for dilation in (1, 2, 4, 1)
        )
        self.width = hidden

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (B, T, width) from (B, H, T)."""
        inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
        inside = inside.unsqueeze(1).to(x.dtype)
        x = x * inside
        for convolution in self.convolutions:
            x = (x + F.relu(convolution(x))) * inside
        return x.transpose(1, 2)
