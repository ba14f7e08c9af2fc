r"""Which sensors hear each other: weights c_ik from their distances.

    w_ik = exp(-(d_ik / sigma)^2), 0 below a threshold      (Shuman et al., arXiv 1211.0053; DCRNN)
    c_ik = w_ik / max(s_i, s_k),  s_i = sum_k w_ik,  c_kk = 1 - sum_{i != k} c_ik

Metropolis-Hastings weights of a weighted graph: symmetric, so that every sensor counts the same.
With w of 0 and 1 they are those of `fedagent.mixing.metropolis`.
"""

import numpy as np

from clients.traffic.data import AUCKLAND, Floats, load
from fedagent.errors import ConfigurationError, require
from fedagent.mixing import MixingMatrix

_EARTH_RADIUS_M = 6_371_000.0


def by_distance(
    num_nodes: int, dataset: str = AUCKLAND, sigma_m: float = 500.0, threshold: float = 0.1
) -> MixingMatrix:
    """Return the weights of the first `num_nodes` sensors.

    Parameters
    ----------
    sigma_m : distance in metres at which w has fallen to 1/e, > 0.
    threshold : w below it are 0, in [0, 1).

    Raises
    ------
    ConfigurationError
        If the data set does not say where its sensors are, or has fewer.
    """
    require(sigma_m > 0, f"by_distance: sigma_m={sigma_m} must be positive.")
    require(0 <= threshold < 1, f"by_distance: threshold={threshold} must lie in [0, 1).")
    places = load(dataset).places
    if places is None:
        raise ConfigurationError(
            f"by_distance: {dataset} does not say where its sensors are; write weights into a file "
            "and take mixing=file."
        )
    require(
        num_nodes <= len(places),
        f"by_distance: {num_nodes} nodes for {len(places)} sensors; set fleet.num_nodes.",
    )
    w = np.exp(-((distances_m(places[:num_nodes]) / sigma_m) ** 2))
    w[w < threshold] = 0.0
    degrees = w.sum(0)
    c = w / np.maximum(degrees[:, None], degrees[None, :])
    np.fill_diagonal(c, 0.0)
    np.fill_diagonal(c, 1.0 - c.sum(0))
    return MixingMatrix.of(c)


def distances_m(places: Floats) -> Floats:
    """Return the (N, N) distances between (N, 2) latitudes and longitudes (haversine formula)."""
    latitude, longitude = np.radians(places).T
    north = np.sin((latitude[:, None] - latitude[None, :]) / 2) ** 2
    east = np.sin((longitude[:, None] - longitude[None, :]) / 2) ** 2
    h = north + np.cos(latitude)[:, None] * np.cos(latitude)[None, :] * east
    return 2 * _EARTH_RADIUS_M * np.arcsin(np.sqrt(h))
