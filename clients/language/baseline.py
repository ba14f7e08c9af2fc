r"""A count of n-grams. Shape legend: V characters, G contexts of one length.

    P_k(c | h) = (N(h c) + D(h) P_{k-1}(c | h')) / (N(h) + D(h)),     P_0 = 1 / V

h are the last k - 1 characters and h' all of them but the first; N counts and D(h) is how many
characters have followed h: interpolation after Witten and Bell, "The zero-frequency problem", IEEE
Transactions on Information Theory 37(4), 1991.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedagent.errors import require

Numbers = npt.NDArray[np.int64]
_MAX_ORDER = 9  # what a context's number in 64 bits has room for


class NGrams:
    """The model that counting makes.

    Parameters
    ----------
    texts : (T,) numbers of each text below `size`, one of at least `order`; no n-gram goes
        from one to the next.
    size : V.
    order : n of n-grams, from 1 to 9: n - 1 characters are looked at.
    """

    def __init__(self, texts: Sequence[Numbers], size: int, order: int) -> None:
        require(1 <= order <= _MAX_ORDER, f"NGrams: order={order} must lie in 1 to {_MAX_ORDER}.")
        self._size = size
        self._contexts: list[Numbers] = []
        self._probabilities: list[npt.NDArray[np.float64]] = []
        below = np.full((1, size), 1.0 / size)
        for length in range(order):
            long = [text for text in texts if len(text) > length]
            seen = np.concatenate([contexts(text[:-1], length, size) for text in long])
            follows = np.concatenate([text[length:] for text in long])
            known, place = np.unique(seen, return_inverse=True)
            counts = np.bincount(place * size + follows, minlength=len(known) * size)
            counts = counts.reshape(len(known), size)
            different = (counts > 0).sum(1, keepdims=True)
            if length:  # what follows h has followed h' as well: it is known
                shorter = np.searchsorted(self._contexts[-1], known % size ** (length - 1))
                below = self._probabilities[-1][shorter]
            mixed = (counts + different * below) / (counts.sum(1, keepdims=True) + different)
            self._contexts.append(known)
            self._probabilities.append(mixed)

    def probabilities(self, text: Numbers, begin: int) -> npt.NDArray[np.float64]:
        """Return (T - begin, V) of what comes at `begin` and after it, by the longest known h."""
        found = np.empty((len(text) - begin, self._size))
        for length, known in enumerate(self._contexts):
            first = max(begin, length)
            asked = contexts(text[first - length : -1], length, self._size)
            place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
            is_known = known[place] == asked
            found[first - begin :][is_known] = self._probabilities[length][place[is_known]]
        return found


def contexts(text: Numbers, length: int, size: int) -> Numbers:
    """Return, for every place in `text` with that many before it and one after all, a number.

    (T - length + 1,): of the `length` numbers before each of the places length to T.
    """
    total = np.zeros(len(text) - length + 1, np.int64)
    for back in range(length):
        total = total * size + text[back : len(text) - length + 1 + back]
    return total
