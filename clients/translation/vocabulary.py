"""Pieces of words, from a federated count.

Every node counts the words of its training pairs, both languages together, and sends the counts;
the server adds them up and lets sentencepiece (Kudo, Richardson, arXiv 1808.06226; byte-pair
encoding) cut the sum into pieces. Where a language writes no spaces a word is a run of one script.
What fewer than two nodes have stays with them. What no piece covers is spelled in bytes.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fedagent.errors import ConfigurationError
from fedagent.tasks import Package

PAD, UNKNOWN, BEGIN, END = range(4)

_SENTENCEPIECE = Package("sentencepiece", "The vocabulary", "fedagent[translation]")
_MIN_NODES = 2
_COVERAGE = 0.995  # of the characters in the text; the others are spelled in bytes
_KANJI, _KANA = r"\u3005\u3400-\u9fff\uf900-\ufaff", r"\u3040-\u30ff"
_RUN = re.compile(rf"[{_KANJI}]+|[{_KANA}]+|[^{_KANJI}{_KANA}]+")


class Vocabulary:
    """From texts to numbers of pieces and back.

    Parameters
    ----------
    counts : of words, one per node.
    size : pieces at most, those of `PAD` to `END` and of 256 bytes among them. Few words give
        fewer.

    Raises
    ------
    ConfigurationError
        If the words have more characters than that.
    """

    def __init__(self, counts: Sequence[Counter[str]], size: int) -> None:
        sentencepiece: Any = _SENTENCEPIECE.module("sentencepiece")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_lines(counts)),
                input_format="tsv",
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=_COVERAGE,
                byte_fallback=True,
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                num_threads=1,
                minloglevel=3,
            )
        except (RuntimeError, OSError) as error:
            raise ConfigurationError(
                f"No vocabulary of {size} pieces can be made of the nodes' words ({error}); raise "
                "app.vocabulary_size."
            ) from error
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    def __len__(self) -> int:
        size: int = self._pieces.get_piece_size()
        return size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the pieces of each text, and `END`."""
        found: list[list[int]] = self._pieces.encode(list(texts), add_eos=True)
        return found

    def decode(self, pieces: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts; of every row what stands before its first `END`."""
        rows = [list(row) for row in pieces]
        ended = [row[: row.index(END)] if END in row else row for row in rows]
        found: list[str] = self._pieces.decode(ended)
        return found


def words(texts: Iterable[str]) -> Counter[str]:
    """Return how often each word is in the texts."""
    return Counter(run for text in texts for word in text.split() for run in _RUN.findall(word))


def _lines(counts: Sequence[Counter[str]]) -> list[str]:
    """Return word, tab and sum of the words that enough nodes have; one node alone has enough."""
    total: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for count in counts:
        total.update(count)
        nodes.update(count.keys())
    enough = min(_MIN_NODES, len(counts))
    return [f"{word}\t{total[word]}" for word in sorted(total) if nodes[word] >= enough]
