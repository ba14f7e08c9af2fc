import torch

from clients.medical.augmentation import mirrored_and_shifted, turned


def pixel(count, row, column, size=9):
    images = torch.zeros(count, 1, size, size)
    images[:, 0, row, column] = 1
    return images


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(1)
    out = mirrored_and_shifted(pixel(2000, 4, 1), max_shift=0)
    columns = out[:, 0, 4].argmax(1)
    assert set(columns.tolist()) == {1, 7}
    assert 900 < int((columns == 7).sum()) < 1100
    assert torch.equal(out.sum((1, 2, 3)), torch.ones(2000))


def test_images_move_by_whole_pixels_in_both_directions():
    torch.manual_seed(1)
    out = mirrored_and_shifted(pixel(2000, 4, 4), max_shift=2)
    assert set(out.unique().tolist()) == {0.0, 1.0}  # nothing is interpolated
    places = {tuple(place) for place in out.nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_what_is_shifted_in_repeats_the_border():
    images = torch.full((50, 3, 5, 5), 7.0)
    assert torch.equal(mirrored_and_shifted(images), images)


def test_channels_move_together_and_the_global_seed_decides():
    images = torch.rand(20, 1, 8, 8).repeat(1, 3, 1, 1)

    def draw():
        torch.manual_seed(5)
        return mirrored_and_shifted(images)

    out = draw()
    assert torch.equal(out[:, 0], out[:, 2])
    assert torch.equal(out, draw())
    assert not torch.equal(out, images)


def test_images_are_turned_by_every_multiple_of_90_degrees_and_nothing_else():
    torch.manual_seed(1)
    out = turned(pixel(2000, 1, 3))
    places, counts = out.nonzero()[:, 2:].unique(dim=0, return_counts=True)
    assert places.tolist() == [[1, 3], [3, 7], [5, 1], [7, 5]]
    assert counts.min() > 400
    assert torch.equal(out.sum((1, 2, 3)), torch.ones(2000))
