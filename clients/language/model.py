"""The networks of the application. Shape legend: B texts, T characters, V symbols, H width.

    gru           embedding, GRU, dense
    transformer   embedding, blocks of causal attention and MLP with LayerNorm before each, dense

Both return (B, T, V) logits of the character after each of (B, T).

The embedding is that of a character plus those of the last 2, 3 and 4: each of these has a row in a
table that is too small for all, and shares it with others by chance. A small network need not learn
to spell then. Hashed n-grams: Mikolov et al., "Strategies for training large scale neural network
language models", ASRU 2011; Bojanowski et al., arXiv 1607.04606, section 3.2.

Most rows are met seldom, and in a mean of several nodes by one of them: such a row moves a fraction
of what its node moved it. So rows begin at 0, not as noise that nobody comes to unlearn, and count
`_GAIN` times.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fedagent.errors import require

_HASH = 2_654_435_761  # Knuth's, of the golden ratio
_GAIN = 8.0
LENGTHS = (2, 3, 4)


class Embedding(nn.Module):
    """A row for each character, plus one for the last 2, 3 and 4 of them.

    Parameters
    ----------
    size : V.
    width : of a row, >= 1.
    rows : of each of the tables of the last 2, 3 and 4 characters, >= 0; 0 does without.
    """

    def __init__(self, size: int, width: int, rows: int) -> None:
        super().__init__()
        self.size = size
        self.one = nn.Embedding(size, width)
        self.several = nn.ModuleList(nn.Embedding(rows, width) for _ in LENGTHS if rows)
        for table in self.several:
            nn.init.zeros_(table.weight)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return (B, T, width)."""
        seen: torch.Tensor = self.one(text)
        number = text + 1  # 0 stands for what is before the text
        for back, table in enumerate(self.several, 1):
            number = number * (self.size + 1) + F.pad(text + 1, (back, 0))[:, :-back]
            seen = seen + _GAIN * table(number * _HASH % 2**32 * table.num_embeddings // 2**32)
        return seen


class GRU(nn.Module):
    """One layer of gated recurrent units.

    Parameters
    ----------
    size : V.
    hidden : H, >= 1; a row of the embedding has a quarter.
    rows : see `Embedding`.
    """

    def __init__(self, size: int, hidden: int, rows: int = 0) -> None:
        super().__init__()
        width = max(1, hidden // 4)
        self.embedding = Embedding(size, width, rows)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, size)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V) logits."""
        logits: torch.Tensor = self.head(self.gru(self.embedding(text))[0])
        return logits


class Block(nn.Module):
    """Attention to what came before, then an MLP; each is added."""

    def __init__(self, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = nn.Linear(hidden, 3 * hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.dense1, self.dense2 = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, H)."""
        heads = self.attention(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        out: torch.Tensor = x + self.dense2(F.gelu(self.dense1(self.norm2(x))))
        return out


class Transformer(nn.Module):
    """A causal transformer.

    Parameters
    ----------
    size : V.
    hidden : H, a multiple of `num_heads`.
    rows : see `Embedding`.
    num_layers, num_heads : >= 1.
    window : the most characters it looks at.
    """

    def __init__(
        self,
        size: int,
        hidden: int,
        rows: int = 0,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 64,
    ) -> None:
        super().__init__()
        require(
            hidden % num_heads == 0,
            f"Transformer: hidden={hidden} must be a multiple of num_heads={num_heads}.",
        )
        self.embedding, self.place = Embedding(size, hidden, rows), nn.Embedding(window, hidden)
        self.blocks = nn.Sequential(*(Block(hidden, num_heads) for _ in range(num_layers)))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, size)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V) logits; T is at most `window`."""
        places = torch.arange(text.shape[1], device=text.device)
        logits: torch.Tensor = self.head(
            self.norm(self.blocks(self.embedding(text) + self.place(places)))
        )
        return logits
