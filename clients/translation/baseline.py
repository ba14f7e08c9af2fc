"""A translation memory: of the most similar sentence, copy the translation.

Similar are sentences whose words' TF-IDF vectors have a large cosine; of equals the first counts.
"""

import re
from collections import Counter
from collections.abc import Sequence

import torch

_WORD = re.compile(r"\w+")


def most_similar(queries: Sequence[str], memory: Sequence[str]) -> list[int]:
    """Return for each query the position of the sentence in `memory` that is most like it."""
    known = [_words(text) for text in memory]
    frequency = Counter(word for text in known for word in text)
    column = {word: n for n, word in enumerate(frequency)}
    weight = torch.log(len(memory) / torch.tensor([float(n) for n in frequency.values()]))
    vectors = _vectors(known, column, weight)
    asked = _vectors([_words(text) for text in queries], column, weight)
    found: list[int] = (vectors @ asked.to_dense().T).argmax(0).tolist()
    return found


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _vectors(
    texts: Sequence[Counter[str]], column: dict[str, int], weight: torch.Tensor
) -> torch.Tensor:
    """Return sparse (texts, words) of length 1 each; words that have no column are left out."""
    entries = [
        (row, column[word], count)
        for row, text in enumerate(texts)
        for word, count in text.items()
        if word in column
    ]
    rows, columns, counts = (torch.tensor(part) for part in zip(*entries, strict=True))
    values = (1 + counts.log()) * weight[columns]
    squares = torch.zeros(len(texts)).index_add(0, rows, values.square())
    values = values / squares.sqrt()[rows].clamp(min=1e-9)
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), values, (len(texts), len(weight)), check_invariants=True
    )
