"""docs/your-own-rule.md, followed to the letter."""

import re
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedagent.rules.staleness import validated
from tests.conformance.checks import CHECKS
from tests.conformance.oracle import Step, polynomial, waits
from tests.conformance.replay import OracleRun, RealRun, Work, assert_same_trace, fleet

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-rule.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
RULES = {
    "Clipped": lambda rules: rules.Clipped(),
    "SquareRoot": lambda rules: rules.SquareRoot(3),
    "SquareRoot-without-a-size": lambda rules: rules.SquareRoot(None),
    "Momentum": lambda rules: rules.Momentum(3),
    "Fresh": lambda rules: rules.Fresh(rules.SquareRoot(2)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the page: blocks that name the same file are parts of it."""
    files = defaultdict(list)
    for _, name, text in BLOCKS:
        files[name].append(text)
    here = tmp_path_factory.mktemp("page")
    for name, parts in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("\n\n".join(parts), encoding="utf-8")
    return here


@pytest.fixture
def module(folder, monkeypatch):
    """Import one of the files, for this test only."""
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - known:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("build", RULES.values(), ids=RULES.keys())
def test_a_rule_of_the_page_passes_what_any_rule_must(build, check, module):
    rules = module("my_rules")
    check(lambda: build(rules))


def test_the_page_s_rules_are_short():
    for _, name, text in BLOCKS:
        if name == "my_rules.py":
            assert len([line for line in text.splitlines() if line.strip()]) <= 25, text


def clipped(x, reply):
    norm = np.linalg.norm(reply.D)
    return Step(x + 0.3 * reply.D * min(1.0, 1.0 / norm), None, published=True)


def square_root():
    buffer, s = [], polynomial(0.5)

    def step(x, reply):
        buffer.append(reply)
        if waits(buffer, 3, reply):
            return Step(x, s(reply.tau), published=False, pending=len(buffer))
        weights = [np.sqrt(r.n) * s(r.tau) for r in buffer]
        mean = np.average([r.D for r in buffer], axis=0, weights=weights)
        buffer.clear()
        return Step(x + mean, s(reply.tau), published=True)

    return step


def momentum():
    means, buffer = [], []

    def step(x, reply):
        buffer.append(reply.D)
        if waits(buffer, 3, reply):
            return Step(x, None, published=False, pending=len(buffer))
        means.append(np.mean(buffer, axis=0))
        buffer.clear()
        m = sum(0.7**age * mean for age, mean in enumerate(reversed(means)))
        return Step(x + 0.3 * m, None, published=True)

    return step


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("Clipped", lambda: clipped), ("SquareRoot", square_root), ("Momentum", momentum)],
)
def test_a_rule_of_the_page_does_what_its_formula_says(name, oracle, module):
    random = np.random.default_rng(6)
    works = [
        Work(int(random.integers(4)), tuple(random.normal(size=3)), float(random.integers(1, 99)))
        for _ in range(40)
    ]
    rules, start = module("my_rules"), (0.5, -1.0, 2.0)
    ours = fleet(RealRun(RULES[name](rules), start), works)
    theirs = fleet(OracleRun(oracle(), start), works)
    assert_same_trace(ours, theirs, tolerance=1e-12)


def test_the_page_s_staleness_weight_is_one(module):
    cosine = validated(module("my_staleness").cosine)
    assert [cosine(0), cosine(20), cosine(100)] == [1.0, 0.0, 0.0]
    assert cosine(10) == pytest.approx(0.5)


def test_the_page_s_scheduler_is_fair_and_goes_on_from_its_state(module):
    from fedagent.scheduling import IdleNodes

    scheduler, idle = module("my_scheduler").TwoChoices(seed=3), IdleNodes()
    for node in range(10):
        idle.add(node)
    for _ in range(200):
        scheduler.assign(idle, 0.0)
    assert max(scheduler.jobs.values()) - min(scheduler.jobs.values()) <= 4
    resumed = module("my_scheduler").TwoChoices(seed=99)
    resumed.load_state_dict(scheduler.state_dict())
    assert [resumed.choose(idle) for _ in range(50)] == [scheduler.choose(idle) for _ in range(50)]


def test_the_simulation_runs_and_every_way_learns(folder):
    done = subprocess.run(
        [sys.executable, "simulate.py"],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
        env={"FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    errors = {name: float(e) for name, e in re.findall(r"^(.+): error (\S+)$", done.stdout, re.M)}
    assert len(errors) == PAGE.count("\nsimulate(")
    start = 14**0.5
    assert all(error < start / 3 for error in errors.values()), errors


def test_the_configuration_builds_the_rule(folder, module):
    from hydra.utils import instantiate

    config = OmegaConf.load(folder / "conf" / "strategy" / "mine.yaml")
    run = {
        "buffer_size": 7,
        "staleness": None,
        "scheduler": {"_target_": "my_scheduler.TwoChoices"},
    }
    run |= {"concurrency": 2, "publish_every_s": None}
    run["staleness"] = {"_target_": "my_staleness.cosine", "_partial_": True}
    strategy = instantiate(OmegaConf.merge(run, config).strategy)
    assert type(strategy.rule) is module("my_rules").SquareRoot
    assert (strategy.rule.buffer_size, strategy.rule.staleness(0)) == (7, 1.0)


def test_the_page_names_files_that_exist():
    for name in re.findall(r"`((?:tests|fedagent)/[^`]+)`", PAGE):
        assert (ROOT / name).exists(), name
