"""A transformer that reads a sentence and writes another (Vaswani et al., arXiv 1706.03762).

Layers are normalised before, not after, each part (Xiong et al., arXiv 2002.04745). One matrix
embeds the pieces of both languages and scores what comes next. What is learned first is which piece
stands for which, so there is a short way for it (`Lexicon`). Shape legend: B sentences, S and T
pieces of source and target, V pieces in the vocabulary, D the width.
"""

import math
from typing import Any

import torch
from torch import nn

from clients.translation.vocabulary import BEGIN, END, PAD

_SHARPNESS = 1.5  # so that a piece begins with most of its attention within a few places


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
        sizes = width, heads, 2 * width
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
        self.lexicon = Lexicon(width, heads)
        for attention in (*(y.multihead_attn for y in self.decoder.layers), self.lexicon.attention):
            _look_at_the_same_place(attention.in_proj_weight)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V) scores of what follows each piece of (B, T) `target`."""
        length = target.shape[1]
        is_later = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        memory = self._encode(source)
        states = self.decoder(
            self._embed(target), memory, tgt_mask=is_later, memory_key_padding_mask=source == PAD
        )
        return self._scores(states, memory, source)

    def translate(self, source: torch.Tensor, max_pieces: int) -> torch.Tensor:
        """Return (B, T) pieces of greedily decoded translations, T <= `max_pieces`."""
        memory, is_padding = self._encode(source), source == PAD
        written = source.new_full((len(source), 1), BEGIN)
        has_ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        known = [memory[:, :0]] * len(self.decoder.layers)
        normalise: Any = self.decoder.norm
        while written.shape[1] <= max_pieces and not has_ended.all():
            state = self._embed(written)[:, -1:]
            for n, layer in enumerate(self.decoder.layers):
                known[n] = torch.cat([known[n], layer.norm1(state)], 1)
                state = _last_state(layer, state, known[n], memory, is_padding)
            scores = self._scores(normalise(state), memory, source)[:, 0]
            following = scores.argmax(-1).masked_fill(has_ended, PAD)
            written = torch.cat([written, following[:, None]], 1)
            has_ended |= following == END
        return written[:, 1:]

    def _encode(self, source: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(self._embed(source), src_key_padding_mask=source == PAD)
        return found

    def _embed(self, pieces: torch.Tensor) -> torch.Tensor:
        embedded = self._meaning(pieces)
        found: torch.Tensor = self.dropout(embedded + positions(pieces.shape[1], embedded))
        return found

    def _meaning(self, pieces: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.embedding(pieces) * math.sqrt(self.width)
        return found

    def _scores(
        self, states: torch.Tensor, memory: torch.Tensor, source: torch.Tensor
    ) -> torch.Tensor:
        said = self.lexicon(states, memory, source == PAD, self._meaning(source))
        return (states + said) @ self.embedding.weight.T


class Lexicon(nn.Module):
    """What the source says where the decoder looks, added to what the decoder is about to say.

    The embeddings of the source themselves, weighed by attention, go through one layer to the
    output (Nguyen and Chiang, "Improving lexical choice in neural machine translation", NAACL
    2018, arXiv 1710.01329), so that rare words need not find their way through encoder and decoder.

    Parameters
    ----------
    width : D.
    heads : of attention, which are averaged.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self,
        states: torch.Tensor,
        memory: torch.Tensor,
        is_padding: torch.Tensor,
        meaning: torch.Tensor,
    ) -> torch.Tensor:
        """Return (B, T, D).

        Parameters
        ----------
        states : (B, T, D) of the decoder.
        memory, is_padding : (B, S, D) and (B, S), the encoded source.
        meaning : (B, S, D) embeddings of the source.
        """
        _, weights = self.attention(states, memory, memory, key_padding_mask=is_padding)
        seen = weights @ meaning
        said: torch.Tensor = self.outer(seen + torch.tanh(self.inner(seen)))
        return said


@torch.no_grad()
def _look_at_the_same_place(weight: torch.Tensor) -> None:
    """Let queries and keys begin as one rotation: what is alike, places above all, is attended to.

    Parameters
    ----------
    weight : (3 D, D) of queries, keys and values.
    """
    queries, keys, _ = weight.chunk(3)
    nn.init.orthogonal_(queries, _SHARPNESS)
    keys.copy_(queries)


def _last_state(
    layer: Any,
    state: torch.Tensor,
    known: torch.Tensor,
    memory: torch.Tensor,
    is_padding: torch.Tensor,
) -> torch.Tensor:
    """Return what a decoder layer, in eval mode, makes of the last place alone.

    Parameters
    ----------
    layer : of `nn.TransformerDecoder`, normalised before each part.
    state : (B, 1, D) of the last place.
    known : (B, T, D) normalised states of all places so far.
    memory, is_padding : (B, S, D) and (B, S), the source.
    """
    state = state + layer.self_attn(known[:, -1:], known, known, need_weights=False)[0]
    asked = layer.norm2(state)
    state = (
        state
        + layer.multihead_attn(
            asked, memory, memory, key_padding_mask=is_padding, need_weights=False
        )[0]
    )
    changed: torch.Tensor = layer.linear2(layer.activation(layer.linear1(layer.norm3(state))))
    return state + changed


def positions(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return (length, D) sines and cosines, with device and type of (..., D) `like`."""
    width = like.shape[-1]
    place = torch.arange(length, device=like.device)[:, None]
    angle = place * 1e-4 ** (torch.arange(0, width, 2, device=like.device) / width)
    return torch.cat([angle.sin(), angle.cos()], 1).to(like.dtype)
