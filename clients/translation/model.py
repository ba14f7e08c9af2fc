"""A transformer that reads a sentence and writes another (Vaswani et al., arXiv 1706.03762).

Layers are normalised before, not after, each part (Xiong et al., arXiv 2002.04745). One matrix
embeds the pieces of both languages and scores what comes next. Shape legend: B sentences, S and T
pieces of source and target, V pieces in the vocabulary, D the width.
"""

import math
from typing import Any

import torch
from torch import nn

from clients.translation.vocabulary import BEGIN, END, PAD


class Translator(nn.Module):
    """Encoder and decoder.

    Parameters
    ----------
    num_pieces : V.
    width : D, a multiple of `heads` and of 2.
    layers : of the encoder, and as many of the decoder, >= 1.
    heads : of attention.
    dropout : share of numbers left out in training, in [0, 1).
    """

    def __init__(
        self, num_pieces: int, width: int = 128, layers: int = 2, heads: int = 4, dropout: float = 0
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(num_pieces, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        settings: dict[str, Any] = {"dropout": dropout, "batch_first": True, "norm_first": True}
        sizes = width, heads, 4 * width
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **settings),
            layers,
            nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*sizes, **settings), layers, nn.LayerNorm(width)
        )
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.ndim > 1:  # torch copies one layer: without this all begin alike
                nn.init.xavier_uniform_(parameter)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V) scores of what follows each piece of (B, T) `target`."""
        return self._scores(self._decode(target, self._encode(source), source == PAD))

    def translate(self, source: torch.Tensor, max_pieces: int) -> torch.Tensor:
        """Return (B, T) pieces of greedily decoded translations, T <= `max_pieces`."""
        memory, is_padding = self._encode(source), source == PAD
        written = source.new_full((len(source), 1), BEGIN)
        has_ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        while written.shape[1] <= max_pieces and not has_ended.all():
            last = self._decode(written, memory, is_padding)[:, -1]
            following = self._scores(last).argmax(-1).masked_fill(has_ended, PAD)
            written = torch.cat([written, following[:, None]], 1)
            has_ended |= following == END
        return written[:, 1:]

    def _encode(self, source: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(self._embed(source), src_key_padding_mask=source == PAD)
        return found

    def _decode(
        self, target: torch.Tensor, memory: torch.Tensor, is_padding: torch.Tensor
    ) -> torch.Tensor:
        length = target.shape[1]
        is_later = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        found: torch.Tensor = self.decoder(
            self._embed(target), memory, tgt_mask=is_later, memory_key_padding_mask=is_padding
        )
        return found

    def _embed(self, pieces: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(pieces) * math.sqrt(self.width)
        found: torch.Tensor = self.dropout(embedded + positions(pieces.shape[1], embedded))
        return found

    def _scores(self, states: torch.Tensor) -> torch.Tensor:
        return states @ self.embedding.weight.T


def positions(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return (length, D) sines and cosines, with device and type of (..., D) `like`."""
    width = like.shape[-1]
    place = torch.arange(length, device=like.device)[:, None]
    angle = place * 1e-4 ** (torch.arange(0, width, 2, device=like.device) / width)
    return torch.cat([angle.sin(), angle.cos()], 1).to(like.dtype)
