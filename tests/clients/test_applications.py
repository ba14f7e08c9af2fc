"""What all applications have in common: their packages' shape, and how they keep the contract."""

import ast
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import import_module
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from clients.detection import DetectionTask
from clients.hospitals import HospitalsTask
from clients.language import LanguageTask
from clients.medical import MedicalTask
from clients.recommendation import RecommendationTask
from clients.regression import RegressionTask
from clients.reinforcement import ReinforcementTask
from clients.speech import SpeechTask
from clients.traffic import TrafficTask
from clients.translation import TranslationTask
from clients.vision import VisionTask
from fedagent.errors import ConfigurationError
from fedagent.tasks import Task

CLIENTS = Path(__file__).parents[2] / "clients"
APPLICATIONS = (
    "detection",
    "hospitals",
    "language",
    "medical",
    "recommendation",
    "regression",
    "reinforcement",
    "speech",
    "traffic",
    "translation",
    "vision",
)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A small task, and the function of its module that reads or makes the data."""

    task: Task
    reads: str


@pytest.fixture(scope="module", params=APPLICATIONS)
def case(request, root) -> Case:
    name = request.param
    build = {
        "detection": lambda: DetectionTask(num_test=5, num_partitions=4),
        "hospitals": HospitalsTask,
        "language": lambda: LanguageTask(num_partitions=3, hidden=8, rows=16),
        "medical": lambda: MedicalTask(root=root, num_partitions=4),
        "recommendation": lambda: RecommendationTask(num_partitions=5, panel_steps=1),
        "regression": lambda: RegressionTask(num_partitions=3),
        "speech": SpeechTask,
        "reinforcement": lambda: ReinforcementTask(
            num_partitions=3, num_validation=2, num_test=5, baseline_nodes=2, baseline_steps=3
        ),
        "traffic": lambda: TrafficTask(num_partitions=2, evaluate_every_h=499),
        "translation": lambda: TranslationTask(
            num_partitions=3,
            vocabulary_size=900,
            width=16,
            num_test=4,
            num_validation=1,
        ),
        "vision": lambda: VisionTask(model="linear", num_partitions=4),
    }[name]
    reads = "generate" if name == "regression" else "load"
    with patch(f"clients.{name}.task.{reads}", side_effect=AssertionError("read too early")):
        return Case(build(), reads)


def test_building_a_task_reads_nothing_and_its_first_use_does(case):
    module = type(case.task).__module__
    fresh = RegressionTask() if "regression" in module else case.task
    vars(fresh).pop("splits", None)
    with (
        patch(f"{module}.{case.reads}", side_effect=ZeroDivisionError),
        pytest.raises(ZeroDivisionError),
    ):
        fresh.num_examples(0)


def test_a_node_that_does_not_exist_is_refused_whatever_is_asked_of_it(case):
    task = case.task
    for node in (-1, task.num_partitions):
        for ask in (
            task.num_examples,
            lambda k: next(task.batches(k, 2)),
            lambda k: task.evaluate(task.build_model(), CPU, k),
        ):
            with pytest.raises(ConfigurationError, match=f"partition-id={node} does not exist"):
                ask(node)
    assert task.num_examples(task.num_partitions - 1) > 0


@pytest.mark.parametrize("node", [None, 0])
def test_every_module_is_in_eval_mode_while_it_is_evaluated_and_trains_on_afterwards(case, node):
    model = case.task.build_model().train()
    modes = []
    for module in model.modules():
        module.register_forward_hook(
            lambda m, *_: modes.append((m.training, torch.is_grad_enabled()))
        )
    metrics = case.task.evaluate(model, CPU, node)
    assert metrics["num-examples"] > 0
    assert case.task.metric.name in metrics
    # The recommender's test split is evaluated with a panel of its own, made of this model.
    assert modes or isinstance(case.task, RecommendationTask)
    assert set(modes) <= {(False, False)}
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_batches_are_endless_and_follow_the_global_seed(case):
    def draw():
        torch.manual_seed(5)
        batches = islice(case.task.batches(0, 10**5), 3)
        return [tensor for batch in batches for tensor in batch]

    first, again = draw(), draw()
    assert len(first) >= 6
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_number_to_beat_has_the_names_and_the_examples_of_the_test_split(case):
    task = case.task
    few = {
        DetectionTask: {"steps": 1},
        MedicalTask: {"num_trees": 5},
        SpeechTask: {"steps": 2},
    }.get(type(task), {})
    state = torch.get_rng_state()
    found = task.baseline(**few)
    assert torch.equal(torch.get_rng_state(), state)
    tested = task.evaluate(task.build_model(), CPU)
    assert set(found) == set(tested)
    assert found["num-examples"] == tested["num-examples"]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_centralised_reference_is_measured_on_what_was_asked_for(case, part):
    seen = []

    def train(task, model):
        seen.append(task.loss(model, next(task.batches(None, 8))))

    found = case.task.centralised(train, CPU, part)
    assert len(seen) == 1
    model = case.task.build_model()
    whole = case.task.evaluate(model, CPU) if part == "test" else case.task.validate(model, CPU)
    assert found["num-examples"] == whole["num-examples"]
    assert case.task.metric.name in found


def test_a_showcase_draws_and_writes_something_of_an_untrained_model(case):
    model = case.task.build_model()
    shown = case.task.shown(model, CPU)
    assert bool(shown.figures or shown.texts) is not isinstance(case.task, RegressionTask)
    assert all(figure.axes for figure in shown.figures.values())
    assert all(text.strip() for text in shown.texts.values())


def test_users_or_sensors_without_a_node_are_counted_aloud(case):
    whole = {"recommendation": ("5 of 671 users", "666"), "traffic": ("2 of 19 sensors", "17")}
    name = type(case.task).__module__.split(".")[1]
    said = " ".join(case.task.remarks())
    assert bool(said) is (name in whole)
    assert all(number in said for number in whole.get(name, ()))


def test_a_default_that_takes_all_says_nothing():
    assert not RecommendationTask().remarks()
    assert not TrafficTask().remarks()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_same_things_have_the_same_file_names(name):
    files = {path.stem for path in (CLIENTS / name).glob("*.py")}
    assert {"__init__", "data", "model", "task"} <= files
    module = import_module(f"clients.{name}")
    (exported,) = module.__all__
    assert issubclass(getattr(module, exported), Task)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_no_application_imports_in_a_circle(name):
    graph = {}
    for path in (CLIENTS / name).glob("*.py"):
        imported = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)
        ]
        graph[f"clients.{name}.{path.stem}"] = {node.module for node in imported}
    assert list(TopologicalSorter(graph).static_order())
