"""Images that must stay together: near-duplicates, which no split may tear apart.

Slices of one head, and copies of one slice, differ in a few pixels; some copies are mirrored,
turned or of another contrast. With one of them to train on and another to test with, a model
is tested on what it has seen.
"""

from collections.abc import Iterator

import networkx as nx
import numpy as np
import numpy.typing as npt

from fedagent.errors import require

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_THUMBNAIL = 16


def groups_of(images: Bytes, correlation: float = 0.99) -> Integers:
    """Return the group of each image: those that a chain of near-duplicates connects.

    Two images are near-duplicates when their 16x16 thumbnails (means of blocks) correlate by more
    than `correlation`, one of them mirrored and turned by any multiple of 90 degrees.

    Parameters
    ----------
    images : (N, S, S), S a multiple of 16.
    correlation : in (0, 1).

    Returns
    -------
    Integers
        (N,) groups, numbered from 0 in the order of their first images.
    """
    num_images, size = images.shape[:2]
    require(
        size % _THUMBNAIL == 0,
        f"Images of {size}x{size} have no 16x16 thumbnails; choose a size that 16 divides.",
    )
    block = size // _THUMBNAIL
    thumbnails = images.reshape(num_images, _THUMBNAIL, block, _THUMBNAIL, block).mean((2, 4))
    thumbnails = thumbnails - thumbnails.mean((1, 2), keepdims=True)
    norms = np.linalg.norm(thumbnails, axis=(1, 2), keepdims=True)
    thumbnails = (thumbnails / np.maximum(norms, 1e-12)).astype(np.float32)
    pixels = thumbnails.reshape(num_images, -1)
    graph = nx.Graph()
    graph.add_nodes_from(range(num_images))
    for turned in symmetries(thumbnails):
        alike = pixels @ turned.reshape(num_images, -1).T > correlation
        # Whether x resembles g(y) or y resembles g(x) is one question, for g and its inverse.
        graph.add_edges_from(np.argwhere(np.triu(alike, k=1)).tolist())
    groups = np.empty(num_images, np.int64)
    for group, members in enumerate(nx.connected_components(graph)):
        groups[list(members)] = group
    return groups


def symmetries(images: npt.NDArray[np.generic]) -> Iterator[npt.NDArray[np.generic]]:
    """Yield (N, S, S) images in the eight ways that a square can be laid down."""
    for mirrored in (images, images[:, :, ::-1]):
        for quarters in range(4):
            yield np.rot90(mirrored, quarters, (1, 2))
