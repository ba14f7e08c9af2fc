import numpy as np
import pytest

from clients.traffic.data import load
from clients.traffic.graph import by_distance, distances_m
from fedagent.errors import ConfigurationError
from tests.clients.traffic.conftest import small_counts


def test_a_degree_of_latitude_is_111_km_and_one_of_longitude_shrinks_with_the_cosine():
    places = np.array([[0.0, 0.0], [1.0, 0.0], [60.0, 0.0], [60.0, 1.0]])
    d = distances_m(places)
    assert d[0, 1] == pytest.approx(111_195, rel=1e-4)
    assert d[2, 3] == pytest.approx(111_195 / 2, rel=1e-3)
    assert np.allclose(d, d.T)


def test_weights_are_symmetric_sum_to_one_and_fall_with_distance():
    c, d = by_distance(19).dense(), distances_m(load().places)
    assert np.allclose(c, c.T)
    assert np.allclose(c.sum(0), 1.0)
    assert (c >= 0).all()
    near = (d > 0) & (d < 500 * np.sqrt(-np.log(0.1)))
    assert ((c > 0) == (near | (d == 0))).all()


def test_two_sensors_by_hand(monkeypatch):
    places = np.array([[0.0, 0.0], [0.0, 0.001]])  # 111.2 m apart
    monkeypatch.setattr("clients.traffic.graph.load", lambda _: type("C", (), {"places": places}))
    w = np.exp(-((111.195 / 200) ** 2))
    c = by_distance(2, sigma_m=200.0).dense()
    assert c[0, 1] == pytest.approx(w / (1 + w), rel=1e-4)
    assert c[0, 0] == pytest.approx(1 / (1 + w), rel=1e-4)


def test_settings_that_cannot_work_are_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match="20 nodes for 19 sensors"):
        by_distance(20)
    with pytest.raises(ConfigurationError, match="sigma_m=0"):
        by_distance(2, sigma_m=0.0)
    monkeypatch.setattr("clients.traffic.graph.load", lambda _: small_counts())
    with pytest.raises(ConfigurationError, match="does not say where its sensors are"):
        by_distance(2)
