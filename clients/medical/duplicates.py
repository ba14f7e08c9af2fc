"""Images that must stay together: near-duplicates, which no split may tear apart.

Slices of one head, and copies of one slice, differ in a few pixels. With one of them to train on
and another to test with, a model is tested on what it has seen.
"""

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
    than `correlation`.

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
    pixels = thumbnails.reshape(num_images, -1)
    pixels = pixels - pixels.mean(axis=1, keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-12)
    pairs = np.argwhere(np.triu(pixels @ pixels.T > correlation, k=1))
    graph = nx.Graph()
    graph.add_nodes_from(range(num_images))
    graph.add_edges_from(pairs.tolist())
    groups = np.empty(num_images, np.int64)
    for group, members in enumerate(nx.connected_components(graph)):
        groups[list(members)] = group
    return groups
