"""From recordings to connected digits. Shape legend: N recordings, B sequences, W words.

A sequence is a list of positions of one speaker's recordings, in the order in which they are heard.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from clients.speech.data import Sequences

PASSES = 4
"""How often a held-out recording is heard, each time between others."""


def drawn(
    positions: Sequence[torch.Tensor], num_sequences: int, num_words: range
) -> list[list[int]]:
    """Return sequences of recordings drawn at random, with the global torch seed.

    Parameters
    ----------
    positions : recordings of every speaker, of whom each sequence has one.
    num_sequences : B >= 1.
    num_words : how many words a sequence may have; all are equally likely.
    """
    speakers = torch.randint(len(positions), (num_sequences,)).tolist()
    sizes = torch.randint(num_words.start, num_words.stop, (num_sequences,)).tolist()
    return [
        positions[speaker][torch.randint(len(positions[speaker]), (size,))].tolist()
        for speaker, size in zip(speakers, sizes, strict=True)
    ]


def composed(positions: torch.Tensor, num_words: range, seed: Sequence[int]) -> list[list[int]]:
    """Return the sequences that a node is examined with: `PASSES` times all its recordings.

    Their lengths go round: 3, 4, 5, 6, 7, 3 and so on. What is too little at the end is left out;
    of fifty recordings, and lengths of 3 to 7, nothing is.

    Parameters
    ----------
    positions : (N,) recordings.
    num_words : how many words a sequence may have.
    seed : decides the order.
    """
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(positions.numpy()) for _ in range(PASSES)]).tolist()
    sequences, begin = [], 0
    for size in cycle(num_words):
        if begin + size > len(order):
            return sequences
        sequences.append(order[begin : begin + size])
        begin += size
    return sequences


def joined(
    frames: Sequence[torch.Tensor], digits: torch.Tensor, sequences: Sequence[Sequence[int]]
) -> Sequences:
    """Return sequences as padded tensors.

    Parameters
    ----------
    frames : N tensors (F, C).
    digits : (N,) words that are said.
    sequences : positions of the recordings of each.
    """
    heard = [torch.cat([frames[position] for position in sequence]) for sequence in sequences]
    return Sequences(
        pad_sequence(heard, batch_first=True),
        torch.tensor([len(one) for one in heard]),
        pad_sequence([digits[list(sequence)] for sequence in sequences], batch_first=True),
        torch.tensor([len(sequence) for sequence in sequences]),
    )
