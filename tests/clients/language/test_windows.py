import pytest
import torch

from clients.language.windows import Scored


@pytest.mark.parametrize("before", [1, 3, 8, 40])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 30, 61])
@pytest.mark.parametrize("width", [2, 8, 9])
def test_every_scored_number_counts_once_and_has_half_a_window_before_it(before, length, width):
    text = torch.arange(before + length) + 100
    scored = Scored.of(text[:before], text[before:], width, length)
    assert scored.inputs.shape == scored.targets.shape == scored.counts.shape
    assert scored.inputs.shape[1] == width
    assert sorted(scored.targets[scored.counts].tolist()) == text[before:].tolist()
    assert torch.equal(scored.inputs[:, 1:], scored.targets[:, :-1])
    for window, place in scored.counts.nonzero().tolist():
        assert scored.targets[window, place] == scored.inputs[window, place] + 1
        number = int(scored.targets[window, place]) - 100
        assert place + 1 >= min(number, width - width // 2)
