from itertools import islice

import torch

from fedagent.tasks.batches import epochs

INDICES = torch.tensor([3, 1, 4, 15, 9])


def test_every_epoch_shows_each_index_once_in_another_order():
    torch.manual_seed(1)
    first, second = (torch.cat(list(islice(batches, 5))) for batches in [epochs(INDICES, 1)] * 2)
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(INDICES.tolist())
    assert first.tolist() != second.tolist()


def test_what_is_left_over_is_not_a_smaller_batch():
    batches = list(islice(epochs(INDICES, 2), 6))
    assert {len(batch) for batch in batches} == {2}
    for start in (0, 2, 4):  # two batches per epoch, without repetition
        assert len(set(torch.cat(batches[start : start + 2]).tolist())) == 4


def test_too_few_examples_are_all_used_each_time():
    for batch in islice(epochs(INDICES, 100), 3):
        assert sorted(batch.tolist()) == sorted(INDICES.tolist())


def test_the_global_seed_decides_the_order():
    def draw(seed):
        torch.manual_seed(seed)
        return torch.cat(list(islice(epochs(INDICES, 2), 4))).tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
