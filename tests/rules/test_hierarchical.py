"""Edges under a root: against an independent recursion, in limits, and in whole runs."""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from fedagent import FedBuff as FlatFedBuff
from fedagent import Hierarchical
from fedagent import rules as r
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.nodes.geography import Blocks, Links, Listed
from fedagent.privacy import Private
from fedagent.rules.staleness import polynomial
from fedagent.simulation import Equal, Geography, Lognormal
from fedagent.stopping import MaxVersions
from fedagent.update import Update
from fedagent.wire.records import digest
from tests.toy import Log, run

P, REGIONS, PER_REGION = 5, 3, 4
NODES = REGIONS * PER_REGION
ROOT_REGION = 1


@dataclass
class Nesterov:
    """Delayed Nesterov as a movement: arXiv 2401.09135, Algorithm 3 with c = 0."""

    eta: float
    beta: float
    n: int
    m: float = 0.0
    seen: list = field(default_factory=list)

    def move(self, delta, tau):
        self.seen.append(delta)
        step = self.eta / self.n * delta
        if len(self.seen) == self.n:
            self.m = self.beta * self.m + np.mean(self.seen, axis=0)
            step = step + self.eta * self.beta * self.m
            self.seen = []
        return step, True


@dataclass
class Buffered:
    """FedBuff as a movement: arXiv 2106.06639 with s(tau) = (1 + tau)^-1/2."""

    k: int
    eta: float
    seen: list = field(default_factory=list)

    def move(self, delta, tau):
        self.seen.append(delta / np.sqrt(1 + tau))
        if len(self.seen) < self.k:
            return np.zeros(P), False
        step, self.seen = self.eta * np.sum(self.seen, axis=0) / self.k, []
        return step, True


# name: (edge of the rule, of the oracle, root of the rule, of the oracle)
PAIRS = {
    "halos": (
        lambda: r.DelayedNesterov(4, 0.9, 0.2),
        lambda: Nesterov(0.2, 0.9, 4),
        lambda: r.DelayedNesterov(2, 0.5, 0.15),
        lambda: Nesterov(0.15, 0.5, 2),
    ),
    "fedbuff": (
        lambda: r.FedBuff(3, 0.7, weighted=False),
        lambda: Buffered(3, 0.7),
        lambda: r.FedBuff(2, 0.9, weighted=False),
        lambda: Buffered(2, 0.9),
    ),
}


def script(length=160):
    """(time, node, delta): every node at its own pace, never two arrivals at one time."""
    rng = np.random.default_rng(5)
    pace = rng.uniform(0.6, 2.4, NODES)
    times = sorted((k * pace[n] + 1e-3 * n, n) for n in range(NODES) for k in range(1, length))
    return [(t, n, rng.standard_normal(P)) for t, n in times[:length]]


def oracle(arrivals, edge, root, send_every, a, up_s, down_s):
    """Independent of the rule: it adds movements up where the rule takes differences."""
    x, top, versions = np.zeros(P), root(), 0
    e, u = np.zeros((REGIONS, P)), np.zeros((REGIONS, P))
    local, published, merged = [edge() for _ in range(REGIONS)], [0] * REGIONS, [0] * REGIONS
    counts, fresh, is_up = [0] * REGIONS, [0] * REGIONS, [False] * REGIONS
    unanswered, last_down_s = [[] for _ in range(REGIONS)], [0.0] * REGIONS
    base = [0] * NODES
    heap = [(t, i, "update", node, delta) for i, (t, node, delta) in enumerate(arrivals)]
    number = len(heap)

    def travel(what, region, news):
        nonlocal number
        number += 1
        arrives_s = max(t, last_down_s[region]) if what == "down" else t
        if region != ROOT_REGION:
            arrives_s += down_s if what == "down" else up_s
        if what == "down":
            last_down_s[region] = arrives_s
        heapq.heappush(heap, (arrives_s, number, what, region, news))

    while heap:
        t, _, what, who, news = heapq.heappop(heap)
        g = who // PER_REGION if what == "update" else who
        if what == "update":
            step, is_new = local[g].move(news, published[g] - base[who])
            e[g], u[g] = e[g] + step, u[g] + step
            fresh[g] += 1
            if is_new:
                published[g], counts[g], fresh[g] = published[g] + 1, counts[g] + fresh[g], 0
            base[who] = published[g]
        elif what == "up":
            step, is_new = top.move(news[0], versions - news[1])
            x, versions = x + step, versions + is_new
            travel("down", g, (x, versions))
            is_up[g] = False
        else:
            unanswered[g].pop(0)
            on_top = u[g] + sum(unanswered[g])  # what the root did not know when it answered
            e[g] = (1 - a) * (e[g] - on_top) + a * news[0] + on_top
            merged[g] = news[1]
        if counts[g] >= send_every and not is_up[g]:
            travel("up", g, (u[g].copy(), merged[g]))
            unanswered[g].append(u[g].copy())
            u[g], counts[g], is_up[g] = np.zeros(P), 0, True
    return x, e, versions


class Driver:
    """A proxy in a few lines: tells the rule the time, and counts versions."""

    def __init__(self, rule):
        self.rule, self.base, self.taus = rule, {}, []
        self.model = FlatModel(ModelSpec.of({"x": np.zeros(P)}), {"x": np.zeros(P)})
        rule.on_start(self.model)
        for node in range(NODES):
            rule.register_node(node, {"partition-id": node})

    def until(self, now_s):
        while (due_s := self.rule.next_due_s()) <= now_s:
            self.model.version += self.rule.advance(self.model, due_s)

    def feed(self, arrivals):
        for now_s, node, delta in arrivals:
            self.until(now_s)
            version, base = self.base.get(node, (0, torch.zeros(P, dtype=torch.float64)))
            self.taus.append(self.rule.version_for(node) - version)
            update = Update(
                node, torch.from_numpy(delta.copy()), base, self.taus[-1], arrived_s=now_s
            )
            self.model.version += self.rule.receive(self.model, update)
            self.until(now_s)
            self.base[node] = self.rule.version_for(node), self.rule.model_for(node).clone()


def rule(name, up_s=0.0, down_s=None):
    edge, _, root, _ = PAIRS[name]
    rates = [P * 8 / s if s else math.inf for s in (up_s if down_s is None else down_s, up_s)]
    return r.Hierarchical(
        Blocks(REGIONS, NODES),
        edge,
        root(),
        send_every=6,
        links=Links(0.0, *rates),
        root_region=ROOT_REGION,
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("up_s", "down_s"),
    [(0.0, 0.0), (0.3107, 0.3107), (2.6303, 2.6303), (9.1701, 9.1701), (0.3107, 4.5517)],
)
def test_follows_an_independent_recursion(name, up_s, down_s):
    """Where the way down is the slower one, several answers are on it."""
    driver = Driver(rule(name, up_s, down_s))
    driver.feed(script())
    driver.until(1e9)
    x, e, versions = oracle(script(), PAIRS[name][1], PAIRS[name][3], 6, 0.25, up_s, down_s)
    assert driver.model.version == versions > 4
    np.testing.assert_allclose(driver.model.vector.numpy(), x, rtol=0, atol=1e-12)
    for edge, expected in zip(driver.rule.edges, e, strict=True):
        np.testing.assert_allclose(edge.published.numpy(), expected, rtol=0, atol=1e-12)
    assert max(driver.taus) > 2


@pytest.mark.parametrize("name", PAIRS)
def test_a_run_goes_on_from_its_state_with_transfers_under_way(name):
    whole, first = Driver(rule(name, 2.6303)), Driver(rule(name, 2.6303))
    whole.feed(script())
    first.feed(script()[:77])
    assert any(edge.going_up for edge in first.rule.edges)
    assert any(edge.coming_down for edge in first.rule.edges)

    second = Driver(rule(name, 2.6303))
    second.rule.load_state_dict(first.rule.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    second.rule.on_start(second.model)
    second.base = dict(first.base)
    first.feed(script()[77:])  # what was saved must not be shared
    second.feed(script()[77:])
    for run_ in (first, second):
        assert torch.equal(run_.model.vector, whole.model.vector)
        assert run_.rule.pending == whole.rule.pending
        assert run_.rule.bytes_between_regions == whole.rule.bytes_between_regions


def test_a_resumed_root_counts_in_versions_of_its_own_where_a_clock_publishes_fewer():
    class Noting(r.ASGD):
        def __init__(self):
            super().__init__(0.5)
            self.taus = []

        def receive(self, model, update):
            self.taus.append(update.staleness)
            return super().receive(model, update)

    def build():
        blocks, links = Blocks(REGIONS, NODES), Links(2.6303)
        return r.Hierarchical(blocks, lambda: r.ASGD(0.1), Noting(), send_every=3, links=links)

    whole, resumed = Driver(build()), Driver(build())
    whole.feed(script()[:77])
    resumed.rule.load_state_dict(whole.rule.state_dict())
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.model.version = 2  # what the clock has published
    resumed.rule.on_start(resumed.model)
    resumed.base = dict(whole.base)
    seen = len(whole.rule.root.taus)
    whole.feed(script()[77:])
    resumed.feed(script()[77:])
    assert resumed.rule.root.taus == whole.rule.root.taus[seen:]
    assert max(resumed.rule.root.taus) > 0


def test_every_update_reaches_the_root_once():
    # Without momentum and with a root that adds what it gets, x is the sum of all that was learned.
    one = r.Hierarchical(
        Blocks(REGIONS, NODES),
        r.ASGD,
        r.ASGD(),
        send_every=6,
        links=Links(5.0),
        root_region=ROOT_REGION,
    )
    driver = Driver(one)
    driver.feed((t, n, np.ones(P)) for t, n, _ in script())
    driver.until(1e9)
    assert one.pending < 6 * REGIONS
    np.testing.assert_allclose(driver.model.vector.numpy(), 160 - one.pending, atol=1e-9)


def test_what_the_root_refuses_is_sent_again():
    class Choosy(r.ASGD):
        refusals, num_examples = 0, 0.0

        def rejection(self, update):
            if self.refusals == 3:
                return None
            self.refusals += 1
            return r.too_stale(update)

        def receive(self, model, update):
            self.num_examples += update.num_examples
            return super().receive(model, update)

    root = Choosy()
    one = r.Hierarchical(Blocks(REGIONS, NODES), r.ASGD, root, send_every=6, links=Links(1.0))
    driver = Driver(one)
    driver.feed((t, n, np.ones(P)) for t, n, _ in script())
    driver.until(1e9)
    assert root.refusals == 3
    assert root.num_examples == 160 - one.pending, "each update brings one"
    np.testing.assert_allclose(driver.model.vector.numpy(), 160 - one.pending, atol=1e-9)
    assert one.pending < 6 * REGIONS


def test_a_region_that_never_publishes_is_refused():
    with pytest.raises(ConfigurationError, match="FedBuff with buffer_size=None never publishes"):
        r.Hierarchical(Blocks(3, 6), lambda: r.FedBuff(None), r.ASGD())


@pytest.mark.parametrize("is_root", [True, False])
def test_a_promise_to_every_single_node_is_refused(is_root):
    builds = [r.FedBuff, lambda: Private(r.FedBuff(1), 2)]
    edge, root = builds if is_root else builds[::-1]
    with pytest.raises(ConfigurationError, match="what Private promises every single node"):
        r.Hierarchical(Blocks(3, 6), edge, root())


@pytest.mark.parametrize("is_root", [True, False])
def test_a_rule_that_alone_understands_its_model_is_refused(is_root):
    class Trees(r.ASGD):
        is_opaque = True

    edge, root = (r.ASGD, Trees()) if is_root else (Trees, r.ASGD())
    with pytest.raises(ConfigurationError, match="only Trees understands its model"):
        r.Hierarchical(Blocks(3, 6), edge, root)


@pytest.mark.parametrize("says", [False, True])
def test_what_regions_say_holds_for_nodes_and_what_the_root_says_for_the_clock(says):
    class Saying(r.ASGD):
        def __init__(self, of_nodes, of_the_clock):
            super().__init__()
            self.of_nodes, self.of_the_clock = of_nodes, of_the_clock

        allows_prefetch = property(lambda self: self.of_nodes)
        allows_clock = needs_clock = property(lambda self: self.of_the_clock)

    one = r.Hierarchical(Blocks(3, 6), lambda: Saying(says, False), Saying(not says, says))
    assert one.allows_prefetch is one.allows_clock is one.needs_clock is says


@pytest.mark.parametrize("is_root", [False, True])
def test_a_rule_that_waits_for_groups_of_nodes_is_refused(is_root):
    edge, root = (r.ASGD, r.FedAT()) if is_root else (r.FedAT, r.ASGD())
    with pytest.raises(ConfigurationError, match="FedAT waits for groups of nodes"):
        r.Hierarchical(Blocks(3, 6), edge, root)


def test_a_round_is_shared_by_the_regions_and_counts_in_deltas_at_the_root():
    root = r.FedBuff("cohort")
    rule = r.Hierarchical(Blocks(REGIONS, 6), lambda: r.FedBuff("cohort"), root, send_every=4)
    model = FlatModel(ModelSpec.of({"w": np.zeros(P)}), {"w": np.zeros(P)})
    rule.on_start(model)
    rule.begin_round(13)
    rule.on_start(model)  # a round that is undone goes on
    assert [edge.rule.buffer_size for edge in rule.edges] == [4] * REGIONS
    assert root.buffer_size == 3
    rule.begin_round(2)
    assert [edge.rule.buffer_size for edge in rule.edges] == [1] * REGIONS
    assert root.buffer_size == 1


def test_what_the_root_found_too_old_to_take_over_is_not_sent_as_new():
    arrays = {"x": np.zeros(1), "pointer": np.array(0)}
    model = FlatModel(ModelSpec.of(arrays, {"pointer": "newest"}), arrays)
    one = r.Hierarchical(Blocks(2, 2), r.ASGD, r.ASGD(), send_every=1, links=Links(2.0))
    one.on_start(model)
    for node in (0, 1):
        one.register_node(node, {"partition-id": node})
    seen = []
    # Node 0 is beside the root. What node 1 sends at 1 is there at 2, and answered at 3.
    for now_s, node, pointer in [(0.5, 0, 3), (1.0, 1, 9), (1.5, 0, 4), (2.5, None, 0), (5, 1, 0)]:
        while (due_s := one.next_due_s()) <= now_s:
            one.advance(model, due_s)
        if node is not None:
            carried = {"pointer": torch.tensor(pointer)} if pointer else {}
            base = one.model_for(node).clone()
            one.receive(
                model, Update(node, base * 0 + 1, base, 0, carried=carried, arrived_s=now_s)
            )
        seen.append(int(model.carried["pointer"]))
    while (due_s := one.next_due_s()) < math.inf:
        one.advance(model, due_s)
    assert [*seen, int(model.carried["pointer"])] == [0, 3, 3, 4, 4, 4]


def test_a_region_sends_what_changed_in_it_and_not_what_it_once_had():
    arrays = {"x": np.zeros(1), "pointer": np.array(0), "flag": np.array(False)}
    model = FlatModel(
        ModelSpec.of(arrays, {"pointer": "newest", "flag": "newest"}),
        arrays,
    )
    one = r.Hierarchical(Blocks(2, 2), r.ASGD, r.ASGD(), send_every=1)
    one.on_start(model)
    for node in (0, 1):
        one.register_node(node, {"partition-id": node})
    seen = []
    for now_s, (node, pointer) in enumerate([(0, 3), (1, 9), (0, None), (1, None), (0, 4)]):
        base = one.model_for(node).clone()
        carried = {} if pointer is None else {"pointer": torch.tensor(pointer)}
        one.receive(model, Update(node, base * 0 + 1, base, 0, carried=carried, arrived_s=now_s))
        while (due_s := one.next_due_s()) <= now_s:
            one.advance(model, due_s)
        seen.append(int(model.carried["pointer"]))
    assert seen == [3, 9, 9, 9, 4]
    assert not model.carried["flag"]


def test_what_root_and_edges_have_lost_is_summed():
    class Losing(r.ASGD):
        lost = {"strategy-raised": 2}  # noqa: RUF012  (one for all, and nobody writes to it)

    driver = Driver(r.Hierarchical(Blocks(REGIONS, NODES), Losing, Losing()))
    assert driver.rule.lost == {"strategy-raised": 2 * (REGIONS + 1)}


def test_a_run_after_a_resumed_one_begins_anew():
    first, second = Driver(rule("fedbuff")), rule("fedbuff")
    first.feed(script()[:77])
    second.load_state_dict(first.rule.state_dict())
    second.on_start(first.model)
    assert any(edge.model.version for edge in second.edges)
    anew = Driver(second).rule
    assert not any(edge.model.version for edge in anew.edges)
    assert not any(edge.published.any() for edge in anew.edges)


def test_what_reaches_the_root_as_its_period_ends_is_part_of_the_version():
    root = r.Periodic(r.FedBuff(None, weighted=False), 3.0)
    one = r.Hierarchical(
        Blocks(REGIONS, NODES),
        r.ASGD,
        root,
        send_every=1,
        links=Links(6.0),  # 3 s each way
        root_region=ROOT_REGION,
    )
    driver, near = Driver(one), ROOT_REGION * PER_REGION
    driver.feed([(0.0, 0, np.ones(P)), (1.0, near, np.ones(P))])
    driver.until(np.nextafter(3.0, 0.0))
    assert (driver.model.version, one.pending) == (0, 2)
    driver.until(3.0)
    assert (driver.model.version, one.pending) == (1, 0)


def test_a_hierarchy_of_hierarchies_goes_on_from_its_state():
    def nested():
        inner = lambda: r.Hierarchical(Blocks(1, NODES), lambda: r.FedBuff(2), r.ASGD(), 2)  # noqa: E731
        return r.Hierarchical(Blocks(REGIONS, NODES), inner, r.ASGD(0.5), 4, links=Links(1.7))

    whole, first, second = Driver(nested()), Driver(nested()), Driver(nested())
    whole.feed(script())
    first.feed(script()[:77])
    second.rule.load_state_dict(first.rule.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    second.rule.on_start(second.model)
    second.base = dict(first.base)
    second.feed(script()[77:])
    assert whole.model.version > 4
    assert torch.equal(second.model.vector, whole.model.vector)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("delay_s", [0.0, 2.6303])
def test_a_clock_at_the_root_publishes_what_the_root_has_learned_by_then(name, delay_s):
    """The same arrivals with and without: until a tick finds the root's buffer in part full."""
    period_s = 3.3
    free, timed = Driver(rule(name, delay_s)), Driver(r.Periodic(rule(name, delay_s), period_s))
    published, has_flushed = [], False
    for arrival in script():
        tick_s = timed.rule._due_s
        if tick_s <= arrival[0]:
            free.until(np.nextafter(tick_s, 0))
            timed.until(np.nextafter(tick_s, 0))
            has_flushed = has_flushed or free.rule.root.pending > 0
            before = timed.model.version
            timed.until(tick_s)
            if timed.model.version > before:
                published.append(tick_s)
                assert tick_s == pytest.approx(period_s * round(tick_s / period_s))
                assert torch.equal(timed.model.vector, free.model.vector) != has_flushed
        free.feed([arrival])
        timed.feed([arrival])
    assert 3 < len(published) <= script()[-1][0] / period_s
    assert timed.rule.pending < 160


def test_bytes_are_counted_for_every_region_but_the_roots():
    driver = Driver(rule("halos", 0.01))
    driver.feed(script())
    driver.until(1e9)
    by_region = np.bincount([n // PER_REGION for _, n, _ in script()], minlength=REGIONS)
    sends = sum(count // 6 for region, count in enumerate(by_region) if region != ROOT_REGION)
    assert driver.rule.bytes_between_regions == sends * 2 * P * 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"send_every": 0}, "send_every=0"),
        ({"merge_weight": 0.0}, "merge_weight=0.0"),
        ({"merge_weight": 1.5}, "merge_weight=1.5"),
        ({"root_region": 3}, "root_region=3"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, named):
    with pytest.raises(ConfigurationError, match=named):
        r.Hierarchical(Blocks(3, 6), r.FedBuff, r.ASGD(), **changes)


# --- whole runs -----------------------------------------------------------------------------------


def world(delay_s, has_edges=True, nodes=8):
    return Lognormal(
        num_nodes=nodes,
        sigma=0.5,
        geography=Geography(Blocks(2, nodes), Links(delay_s), has_edges),
    )


def strategy(log, delay_s, **changes):
    settings = {"edge": lambda: r.FedBuff(2), "send_every": 4} | changes
    return Hierarchical(
        Blocks(2, 8), links=Links(delay_s), fraction_evaluate=0.0, callbacks=[log], **settings
    )


def test_one_region_without_delay_is_the_flat_rule():
    fleet, log = Lognormal(num_nodes=6), Log()
    flat = run(FlatFedBuff(buffer_size=3, fraction_evaluate=0.0), fleet, rounds=12)
    one = Hierarchical(
        Blocks(1, 6),
        edge=lambda: r.FedBuff(3, staleness=polynomial),
        root=r.FedBuff(1),
        send_every=3,
        merge_weight=1.0,
        fraction_evaluate=0.0,
        callbacks=[log],
    )
    hierarchical = run(one, fleet, rounds=12)
    assert hierarchical.virtual_time_s == flat.virtual_time_s
    assert log.statistics.staleness_max > 1
    for name, array in flat.result.arrays.items():
        np.testing.assert_allclose(
            hierarchical.result.arrays[name].numpy(), array.numpy(), rtol=0, atol=2e-6
        )


@pytest.mark.parametrize("workers", [1, 2])
def test_slow_links_come_out_the_same_for_any_number_of_workers(workers):
    alone, helped = (
        run(strategy(Log(), 7.3), world(7.3), rounds=8, workers=n) for n in (0, workers)
    )
    assert digest(alone.result.arrays) == digest(helped.result.arrays)
    assert alone.virtual_time_s == helped.virtual_time_s


def test_buffers_of_a_cohort_publish_in_regions_too():
    log = Log()
    cohort = {"edge": lambda: r.FedBuff("cohort"), "root": r.FedBuff("cohort")}
    run(strategy(log, 0.0, **cohort), world(0.0), rounds=10)
    assert log.statistics.version >= 5


def test_nodes_never_wait_for_what_is_under_way():
    log = Log()
    outcome = run(strategy(log, 1000.0), world(1000.0), rounds=3)
    # The root's own region publishes; everybody worked all the time, whatever the link.
    assert log.statistics.utilisation > 0.99
    assert outcome.virtual_time_s < 1000.0


def test_a_version_comes_out_when_a_slow_delta_arrives():
    log = Log()
    far_away = Hierarchical(
        Listed([[], range(4)]),  # nobody is where the root is
        edge=r.ASGD,
        send_every=4,
        links=Links(4.5),
        fraction_evaluate=0.0,
        stopping=[MaxVersions(4)],
        callbacks=[log],
    )
    run(far_away, Equal(num_nodes=4), rounds=1000)
    # Jobs take 1 s; four nodes make 4 updates at 1 s, which take 2.25 s to the root. Then the next
    # delta leaves, with all that was learned meanwhile.
    assert [now_s for _, _, now_s in log.versions] == [3.25, 5.5, 7.75, 10.0]
    assert [updates for _, updates, _ in log.versions] == [12, 20, 28, 36]
    assert log.statistics.utilisation > 0.9


def test_bytes_between_regions_of_nodes_and_of_edges():
    flat_log, log = Log(), Log()
    run(
        FlatFedBuff(buffer_size=2, fraction_evaluate=0.0, callbacks=[flat_log]),
        world(1.0, False),
        rounds=12,
    )
    outcome = run(strategy(log, 1.0), world(1.0), rounds=12)
    assert flat_log.statistics.edge_bytes_between_regions == 0
    far = [s for s in flat_log.settlements if s.dispatch.node_id >= 1005]
    assert flat_log.statistics.node_bytes_between_regions >= 2 * len(far) * 20
    assert outcome.grid.statistics.node_bytes_between_regions == 0
    assert log.statistics.node_bytes_between_regions == 0
    assert log.statistics.bytes_between_regions > 0
    assert log.statistics.bytes_between_regions < flat_log.statistics.bytes_between_regions / 3


def test_counts_add_up():
    log = Log()
    run(strategy(log, 9.0), world(9.0), rounds=10)
    statistics = log.statistics
    assert statistics.num_dispatches == sum(statistics.by_outcome().values())
    assert statistics.by_outcome()["applied"] == statistics.num_updates
    assert 0 <= statistics.buffered < statistics.num_updates


def test_nodes_evaluate_the_model_of_their_region():
    log = Log()
    one = strategy(log, 5.0)
    run(one, world(5.0), rounds=6)
    near, far = (edge.published for edge in one.rule.edges)
    assert not torch.equal(near, far)
    assert torch.equal(one.rule.model_for(1001), near)
    assert torch.equal(one.rule.model_for(1008), far)


def test_equal_nodes_without_geography_are_placed_by_blocks():
    log = Log()
    one = strategy(log, 0.0)
    run(one, Equal(num_nodes=8), rounds=4)
    assert [one.rule._region_of[1001 + i] for i in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
