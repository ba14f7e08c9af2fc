"""Figures that several applications show."""

import torch

from fedagent.tasks.figures import confusion_matrix


def test_a_confusion_matrix_counts_true_rows_and_predicted_columns():
    labels = torch.tensor([0, 0, 0, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1])
    (axes,) = confusion_matrix(labels, predicted, ["a", "b", "c"]).axes
    written = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert written == {(0, 0): "2", (0, 1): "1", (1, 1): "1", (2, 1): "1"}
    (image,) = axes.get_images()
    assert torch.allclose(
        torch.tensor(image.get_array().data),
        torch.tensor([[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.float32),
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_too_many_classes_to_name_are_only_coloured():
    labels = torch.arange(30)
    (axes,) = confusion_matrix(labels, labels).axes
    assert not axes.texts
    assert axes.get_images()[0].get_array().shape == (30, 30)
