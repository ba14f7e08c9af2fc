import pytest

from fedagent.errors import ConfigurationError
from fedagent.nodes.geography import Blocks, ByAttribute, ByMeasure, Links, Listed, Regions
from fedagent.simulation import Equal, Geography, Scripted
from fedagent.simulation.nodes import Nodes

NODE = 4711


def places(regions, key, values):
    return [regions.of(NODE, {key: value}) for value in values]


def test_blocks_are_contiguous_and_equal():
    assert places(Blocks(4, 8), "partition-id", range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert places(Blocks(3, 4), "partition-id", range(4)) == [0, 0, 1, 2]


def test_lists_name_partitions_or_node_ids():
    assert places(Listed([[0, 3], [1]]), "partition-id", range(4)) == [0, 1, None, 0]
    assert Listed([[5], [NODE]], key="node-id").of(NODE, {}) == 1


def test_an_attribute_must_be_an_existing_region():
    assert places(ByAttribute(2), "region", [0, 1, 2, -1]) == [0, 1, None, None]


def test_latencies_fall_between_their_limits():
    regions = ByMeasure([0.1, 1.0])
    assert regions.count == 3
    assert places(regions, "latency-s", [0.0, 0.1, 0.99, 1.0]) == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "regions", [Blocks(2, 4), Listed([[0], [1]]), ByAttribute(2), ByMeasure([1.0])]
)
def test_a_node_of_which_nothing_is_known_has_no_region(regions):
    assert regions.of(NODE, {}) is None


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Blocks(5, 4), "num_regions=5"),
        (lambda: Listed([[1, 2], [2]]), r"\[2\] are in more than one"),
        (lambda: Listed([]), "members is empty"),
        (lambda: ByAttribute(0), "num_regions=0"),
        (lambda: ByMeasure([1.0, 1.0]), "must be finite and increase"),
        (lambda: ByMeasure([float("nan")]), "must be finite and increase"),
    ],
)
def test_impossible_regions_are_refused_by_name(build, named):
    with pytest.raises(ConfigurationError, match=named):
        build()


@pytest.mark.parametrize("missing", ["count", "of"])
def test_a_division_that_lacks_what_it_must_say_cannot_be_built(missing):
    members = {"count": property(lambda self: 1), "of": lambda self, node_id, attributes: 0}
    del members[missing]
    with pytest.raises(TypeError, match=rf"abstract.*{missing}"):
        type("Half", (Regions,), members)()


def fleet(has_edges):
    inside, between = Links(0.1, 1000.0, 500.0), Links(2.0, 100.0, 800.0)
    geography = Geography(Blocks(2, 4), between, has_edges)
    return Equal(num_nodes=4, links=inside, geography=geography)


def test_nodes_of_other_regions_talk_over_the_slow_link_unless_there_are_edges():
    near, far = fleet(has_edges=False).profile(1), fleet(has_edges=False).profile(2)
    assert (near.latency_s, near.download_bytes_per_s, near.upload_bytes_per_s) == (0.1, 1000, 500)
    assert (far.latency_s, far.download_bytes_per_s, far.upload_bytes_per_s) == (2.1, 100, 500)
    assert fleet(has_edges=True).profile(2).latency_s == 0.1


def test_a_message_takes_half_the_latency_and_its_bytes():
    links = Links(2.0, download_bytes_per_s=100.0, upload_bytes_per_s=50.0)
    assert links.down_s(200) == 1.0 + 2.0
    assert links.up_s(200) == 1.0 + 4.0


FIRST, SECOND, THIRD, FOURTH = Equal(num_nodes=4).node_ids
SPEEDS = (1.0, 5.0, 1.0, 5.0)


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        (Blocks(2, 4), [0, 0, 1, 1]),
        (Listed([[0, 3], [1, 2]]), [0, 1, 1, 0]),
        (Listed([[FIRST, FOURTH], [SECOND, THIRD]], key="node-id"), [0, 1, 1, 0]),
        (ByMeasure([2.0], key="seconds-per-step"), [0, 1, 0, 1]),
        (ByMeasure([0.5], key="latency-s"), [0, 0, 0, 1]),
    ],
)
@pytest.mark.parametrize("has_edges", [False, True])
def test_a_simulation_and_the_rule_put_a_node_into_the_same_region(regions, expected, has_edges):
    """Whatever a region is told by: partition, node id, speed or the node's own latency."""
    fleet = Scripted(
        num_nodes=4,
        times=SPEEDS,
        links=Links(0.1),
        profiles={3: {"latency_s": 0.9}},
        geography=Geography(regions, Links(2.0), has_edges),
    )
    assert [fleet.profile(i).region for i in range(4)] == expected
    remote_s = [2.0 * (region != 0 and not has_edges) for region in expected]
    own_s = [0.1, 0.1, 0.1, 0.9]
    assert [fleet.profile(i).latency_s for i in range(4)] == pytest.approx(
        [own + remote for own, remote in zip(own_s, remote_s, strict=True)]
    )
    if has_edges:  # then there is a hierarchical rule, which asks what the grid knows
        nodes = Nodes(fleet)
        told = [regions.of(node_id, nodes.attributes(node_id)) for node_id in fleet.node_ids]
        assert told == expected
