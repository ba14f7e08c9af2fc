"""What is scored of a text: windows with enough before every character that counts."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Scored:
    """The beginning of what was held out, in N windows of W numbers.

    Attributes
    ----------
    inputs, targets : (N, W) int64; the target is the number that follows.
    counts : (N, W) bool; every scored number counts once. Those before it are there to be read.
    num_characters : of the scored text, >= 1.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor
    num_characters: int

    @classmethod
    def of(cls, before: torch.Tensor, scored: torch.Tensor, width: int, chars: int) -> "Scored":
        """Cut windows, each half a window after the last: the model reads half of it at least.

        Parameters
        ----------
        before : (T,) numbers before the scored ones, T >= 1. Where they are fewer than half a
            window, the model reads fewer.
        scored : (S,) numbers, S >= 1.
        width : W >= 2.
        chars : how many characters `scored` stands for.
        """
        stride = width // 2
        text = torch.cat([before[-(width - stride + 1) :], scored])
        first = len(text) - len(scored)
        spare = max(0, width + 1 - len(text))  # a short text is padded behind, where nobody looks
        text = torch.cat([text, text.new_zeros(spare)])
        begins = list(range(0, len(text) - width, stride))
        if begins[-1] + width + 1 < len(text):
            begins.append(len(text) - width - 1)
        windows = torch.stack([text[b : b + width + 1] for b in begins])
        places = torch.tensor(begins)[:, None] + torch.arange(1, width + 1)
        done = torch.tensor([first, *(b + width + 1 for b in begins[:-1])])
        counts = (places >= done[:, None]) & (places < len(text) - spare)
        return cls(windows[:, :-1], windows[:, 1:], counts, chars)
