"""The global random generators: each job starts from its own seed, and the server notices none."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed the global generators and use one torch thread; put everything back afterwards.

    One thread, because the order of a parallel sum changes its last bits.
    """
    numpy_state, threads = np.random.get_state(), torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        with rng_state_preserved():
            seed_generators(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        if threads != 1:
            torch.set_num_threads(threads)


@contextmanager
def rng_state_preserved() -> Iterator[None]:
    """Put the global generators back afterwards; what is drawn until they are seeded is undefined.

    Taking and restoring NumPy's state is a tenth of a small job's time. So NumPy draws from another
    generator meanwhile; what it loses by that is told by `forget_spare_normal`.
    """
    before = random.getstate(), torch.get_rng_state()
    own = np.random.get_bit_generator()  # type: ignore[attr-defined]
    other = _spare_generators.pop() if _spare_generators else np.random.MT19937()
    np.random.set_bit_generator(other)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        random.setstate(before[0])
        torch.set_rng_state(before[1])
        np.random.set_bit_generator(own)  # type: ignore[attr-defined]
        _spare_generators.append(other)


_spare_generators: list[np.random.MT19937] = []


def forget_spare_normal() -> None:
    """Forget the second of the two normal numbers that ``np.random.randn`` makes at a time.

    Changing NumPy's generator does that. The grid, which waits for a client's work, does it too,
    wherever the work is done, so that a ServerApp draws the same numbers.
    """
    np.random.set_bit_generator(np.random.get_bit_generator())  # type: ignore[attr-defined]


def seed_generators(seed: int | Sequence[int]) -> None:
    """Seed the global generators of ``random``, NumPy and torch; of several numbers with a mix.

    Without an accelerator ``torch.manual_seed`` queues a call and a stack trace for one that never
    comes: a tenth of a small job's time, and memory that grows with every job.
    """
    if not isinstance(seed, int):
        seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


_has_accelerator = lru_cache(torch.accelerator.is_available)
