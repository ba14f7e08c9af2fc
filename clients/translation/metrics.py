"""How close translations are to the references: chrF and BLEU, both from 0 to 100, by sacrebleu."""

import re
from collections.abc import Sequence
from typing import Any

from fedagent.errors import imported
from fedagent.tasks import Metrics

_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def scores(translations: Sequence[str], references: Sequence[str]) -> Metrics:
    """Return both for a corpus; words of BLEU are characters where Japanese or Chinese is written.

    chrF: Popovic, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.
    BLEU: Post, "A call for clarity in reporting BLEU scores", arXiv 1804.08771.
    """
    # Imported here because it takes a while, which a node that only trains need not spend.
    sacrebleu: Any = imported("sacrebleu", "fedagent[translation]", "Scoring translations")
    words = "char" if any(map(_UNSPACED.search, references)) else "13a"
    corpus = translations, [references]
    return {
        "chrf": float(sacrebleu.corpus_chrf(*corpus).score),
        "bleu": float(sacrebleu.corpus_bleu(*corpus, tokenize=words).score),
        "num-examples": float(len(references)),
    }
