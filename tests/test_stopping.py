"""When a run ends, and that it does not end before."""

import math
from dataclasses import replace

import pytest

from fedagent.errors import ConfigurationError
from fedagent.statistics import KEPT_EVALUATIONS, Evaluation, Statistics
from fedagent.stopping import (
    MaxRounds,
    MaxSeconds,
    MaxUpdates,
    MaxVersions,
    Metric,
    Plateau,
    RunEnd,
    StoppingConfig,
    Target,
    first_reason,
    next_due_s,
)

LOSS = Metric("loss", mode="min")


def evaluated(*values: float, name: str = "accuracy", source: str = "server") -> Statistics:
    """Statistics after one evaluation per value."""
    statistics = Statistics()
    for i, value in enumerate(values):
        statistics.evaluated(Evaluation(i, float(i), i, source, {name: value}))
    return statistics


@pytest.mark.parametrize(
    ("condition", "before", "at", "after"),
    [
        (MaxVersions(5), {"version": 4}, {"version": 5}, {"version": 6}),
        (MaxUpdates(5), {"num_updates": 4}, {"num_updates": 5}, {"num_updates": 6}),
        (MaxSeconds(2.5), {"now_s": 2.4}, {"now_s": 2.5}, {"now_s": 9.0}),
    ],
)
def test_limit_stops_when_it_is_reached_and_not_before(condition, before, at, after):
    assert condition(Statistics(**before)) is None
    assert condition(Statistics(**at)) is not None
    assert condition(Statistics(**after)) is not None


@pytest.mark.parametrize(
    ("condition", "others"),
    [
        (MaxVersions(5), {"num_updates": 99, "now_s": 99.0, "wall_s": 99.0}),
        (MaxUpdates(5), {"version": 99, "now_s": 99.0, "wall_s": 99.0}),
        (MaxSeconds(5), {"version": 99, "num_updates": 99, "wall_s": 99.0}),
    ],
)
def test_limit_reads_its_own_quantity_only(condition, others):
    assert condition(Statistics(**others)) is None


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (MaxVersions(3), "3 versions"),
        (MaxUpdates(7), "7 updates"),
        (MaxSeconds(1.5), "1.5 seconds"),
    ],
)
def test_reason_names_the_limit(condition, reason):
    assert condition(Statistics(version=9, num_updates=9, now_s=9.0)) == reason


def test_limit_of_zero_stops_at_once():
    start = Statistics()

    assert all(condition(start) for condition in (MaxVersions(0), MaxUpdates(0), MaxSeconds(0)))


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: MaxVersions(-1), "versions=-1"),
        (lambda: MaxUpdates(-1), "updates=-1"),
        (lambda: MaxSeconds(-0.5), "seconds=-0.5"),
        (lambda: MaxSeconds(math.nan), "seconds=nan"),
        (lambda: Target(math.nan), "value=nan"),
        (lambda: Plateau(patience=0), "patience=0"),
        (lambda: Plateau(min_delta=-0.1), "min_delta=-0.1"),
        (lambda: Metric(mode="best"), "mode='best'"),
        (lambda: Metric(source="nodes"), "source='nodes'"),
    ],
)
def test_setting_that_cannot_work_is_named(build, setting):
    with pytest.raises(ConfigurationError, match=setting):
        build()


@pytest.mark.parametrize(
    ("target", "statistics", "stops"),
    [
        (Target(0.9), evaluated(), False),
        (Target(0.9), evaluated(0.5, 0.89), False),
        (Target(0.9), evaluated(0.5, 0.9), True),
        (Target(0.9), evaluated(0.95), True),
        (Target(0.9), evaluated(0.95, math.nan), False),
        (Target(0.9), evaluated(math.nan, 0.95), True),
        (Target(0.9), evaluated(0.95, source="clients"), False),
        (Target(0.9), evaluated(0.95, name="auc"), False),
        (Target(0.9, Metric(source="clients")), evaluated(0.95, source="clients"), True),
        (Target(0.1, LOSS), evaluated(0.11, name="loss"), False),
        (Target(0.1, LOSS), evaluated(0.1, name="loss"), True),
        (Target(0.1, LOSS), evaluated(math.nan, name="loss"), False),
    ],
)
def test_target_stops_once_the_metric_has_reached_it(target, statistics, stops):
    assert (target(statistics) is not None) is stops


@pytest.mark.parametrize(
    ("source", "metrics", "accuracy", "loss"),
    [
        ("server", {"accuracy": 0.5}, 0.5, None),
        ("server", {"accuracy": 1}, 1.0, None),
        ("server", {"loss": 0.2}, None, 0.2),
        ("server", {"accuracy": [0.3, 0.4]}, None, None),
        ("clients", {"accuracy": 0.1, "loss": 0.1}, None, None),
    ],
)
def test_a_metric_is_one_number_of_one_source(source, metrics, accuracy, loss):
    evaluation = Evaluation(9, 9.0, 9, source, metrics)
    assert Metric().value(evaluation) == accuracy
    assert LOSS.value(evaluation) == loss


def test_target_says_which_metric_and_how_far():
    reason = Target(0.9)(evaluated(0.91234))

    assert reason == "accuracy 0.9123 reached the target 0.9"


@pytest.mark.parametrize(
    ("plateau", "values", "stops"),
    [
        (Plateau(2), [], False),
        (Plateau(2), [0.5], False),
        (Plateau(2), [0.5, 0.5], False),
        (Plateau(2), [0.5, 0.5, 0.5], True),
        (Plateau(2), [0.5, 0.4, 0.6, 0.5], False),
        (Plateau(2), [0.5, 0.4, 0.6, 0.5, 0.6], True),
        (Plateau(2), [0.1, 0.2, 0.3, 0.4], False),
        (Plateau(2, min_delta=0.1), [0.5, 0.55, 0.59], True),
        (Plateau(2, min_delta=0.1), [0.5, 0.55, 0.61], False),
        (Plateau(2), [0.5, math.nan, math.nan], True),
    ],
)
def test_plateau_counts_evaluations_without_improvement(plateau, values, stops):
    assert (plateau(evaluated(*values)) is not None) is stops


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([1.0, 0.9, 0.8], False),
        ([0.8, 0.9, 1.0], True),
        ([1.0, 0.97, 0.94], False),
        ([1.0, 0.97, 0.96], True),
    ],
)
def test_plateau_of_a_loss_wants_smaller_values(values, stops):
    plateau = Plateau(2, min_delta=0.05, metric=LOSS)

    assert (plateau(evaluated(*values, name="loss")) is not None) is stops


def test_run_that_only_ever_diverged_is_a_plateau():
    assert Plateau(3)(evaluated(math.nan, math.nan)) is None
    assert Plateau(3)(evaluated(math.nan, math.nan, math.nan)) is not None


def test_first_number_after_nan_is_an_improvement():
    assert Plateau(2)(evaluated(math.nan, 0.1, 0.0)) is None


def test_plateau_ignores_the_other_source():
    statistics = evaluated(0.5, 0.5, 0.5, 0.5)
    statistics.evaluated(Evaluation(9, 9.0, 9, "clients", {"accuracy": 0.9}))

    assert Plateau(2)(statistics) is not None
    assert Plateau(2, metric=Metric(source="clients"))(statistics) is None


def test_first_condition_that_holds_gives_the_reason():
    conditions = [MaxUpdates(100), MaxVersions(2), MaxSeconds(1)]

    assert first_reason(conditions, Statistics(version=2, now_s=5.0)) == "2 versions"
    assert first_reason(conditions, Statistics(version=1, now_s=5.0)) == "1 seconds"


def test_run_goes_on_while_no_condition_holds():
    assert first_reason([MaxUpdates(100), MaxVersions(2)], Statistics(version=1)) is None
    assert first_reason([], Statistics(version=10**6)) is None


@pytest.mark.parametrize("condition", [Target(2.0), Plateau(patience=10**6)])
def test_a_condition_looks_at_every_evaluation_once(condition, monkeypatch):
    looked_at, value = [], Metric.value
    monkeypatch.setattr(Metric, "value", lambda m, e: looked_at.append(e.version) or value(m, e))
    statistics = Statistics()
    for version in range(3 * KEPT_EVALUATIONS):
        statistics.evaluated(Evaluation(version, 0.0, 0, "server", {"accuracy": 0.5}))
        assert condition(statistics) is None
        assert condition(statistics) is None
    assert looked_at == list(range(3 * KEPT_EVALUATIONS))


def test_what_is_no_longer_kept_still_counts():
    plateau, statistics = Plateau(patience=2 * KEPT_EVALUATIONS), Statistics()
    for version in range(2 * KEPT_EVALUATIONS + 1):
        assert plateau(statistics) is None
        accuracy = 0.9 if version == 0 else 0.1
        statistics.evaluated(Evaluation(version, 0.0, 0, "server", {"accuracy": accuracy}))
    assert plateau(statistics) is not None


@pytest.mark.parametrize("condition", [Target(0.9), Plateau(patience=2)])
def test_a_condition_begins_anew_with_another_run(condition):
    first, second = evaluated(0.95, 0.95, 0.95), evaluated(0.1)
    assert condition(first) is not None
    assert condition(second) is None
    assert condition(first) is not None


@pytest.mark.parametrize(
    ("kind", "is_complete", "has_failed", "text"),
    [
        ("completed", True, False, "200 updates"),
        ("stalled", False, True, "stalled: 200 updates"),
        ("stopped", False, False, "stopped: 200 updates"),
        ("failed", False, True, "failed: 200 updates"),
    ],
)
def test_only_a_completed_run_did_what_it_was_asked_to(kind, is_complete, has_failed, text):
    end = RunEnd(kind, "200 updates")
    assert (end.is_complete, end.has_failed, str(end)) == (is_complete, has_failed, text)


def test_only_conditions_that_name_a_time_are_due():
    assert next_due_s([MaxUpdates(3), MaxSeconds(9.0), MaxSeconds(4.0)]) == 4.0
    assert next_due_s([MaxUpdates(3)]) == math.inf


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("x"), "failed"), (KeyboardInterrupt(), "stopped"), (SystemExit(3), "stopped")],
)
def test_an_exception_names_the_end_that_it_makes(error, kind):
    end = RunEnd.by(error)
    assert (end.kind, end.is_complete) == (kind, False)
    assert type(error).__name__ in str(end)


def check_a_target_ends_the_run_only_at_target() -> None:
    """`at_target` decides whether a target that is reached is the end; the others stay as set."""
    metric, reached = Metric(), evaluated(0.95)
    goes_on = StoppingConfig(max_updates=5).conditions(metric, 0.9)
    assert first_reason(goes_on, reached) is None, "a target that is only recorded has ended a run"
    ends = StoppingConfig(max_updates=5, at_target=True).conditions(metric, 0.9)
    assert "target 0.9" in str(first_reason(ends, reached)), "the target was reached"
    assert first_reason(ends, evaluated(0.85)) is None
    assert first_reason(ends, Statistics(num_updates=5)) == "5 updates"
    alone = StoppingConfig(at_target=True).conditions(LOSS, 0.1)
    assert first_reason(alone, evaluated(0.05, name="loss")) is not None, "of its own metric"
    try:
        StoppingConfig(at_target=True).conditions(metric, None)
    except ConfigurationError as error:
        assert "at_target needs a target" in str(error)  # noqa: PT017  (a check, not a test)
    else:
        raise AssertionError("at_target without a target was accepted")


def never_ends_at_the_target(patch):
    right = StoppingConfig.conditions
    patch.setattr(
        StoppingConfig,
        "conditions",
        lambda self, metric, target: [
            c for c in right(self, metric, target) if not isinstance(c, Target)
        ],
    )


def always_ends_at_the_target(patch):
    right = StoppingConfig.conditions

    def conditions(self, metric, target):
        if target is None:
            return right(self, metric, target)
        return right(replace(self, at_target=True), metric, target)

    patch.setattr(StoppingConfig, "conditions", conditions)


def ends_at_the_target_of_the_default_metric(patch):
    right = StoppingConfig.conditions
    patch.setattr(
        StoppingConfig, "conditions", lambda self, _, target: right(self, Metric(), target)
    )


def at_target_leaves_out_the_limits(patch):
    right = StoppingConfig.conditions
    patch.setattr(
        StoppingConfig,
        "conditions",
        lambda self, metric, target: right(
            replace(self, max_updates=None) if self.at_target else self, metric, target
        ),
    )


def at_target_needs_no_target(patch):
    right = StoppingConfig.conditions
    patch.setattr(
        StoppingConfig,
        "conditions",
        lambda self, metric, target: [] if target is None else right(self, metric, target),
    )


def test_a_target_ends_the_run_only_at_target():
    check_a_target_ends_the_run_only_at_target()


@pytest.mark.parametrize(
    "plant",
    [
        never_ends_at_the_target,
        always_ends_at_the_target,
        ends_at_the_target_of_the_default_metric,
        at_target_leaves_out_the_limits,
        at_target_needs_no_target,
    ],
)
def test_a_mistake_about_the_target_is_noticed(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_a_target_ends_the_run_only_at_target()


@pytest.mark.parametrize(
    ("setting", "condition"),
    [
        ({"max_rounds": 3}, MaxRounds(3)),
        ({"max_versions": 3}, MaxVersions(3)),
        ({"max_updates": 3}, MaxUpdates(3)),
        ({"max_seconds": 3.0}, MaxSeconds(3.0)),
        ({"patience": 3, "min_delta": 0.1}, Plateau(3, 0.1, LOSS)),
    ],
)
def test_each_setting_is_its_condition_alone(setting, condition):
    assert StoppingConfig(**setting).conditions(LOSS, 0.1) == [condition]


def test_a_configuration_that_nothing_ends_is_refused():
    with pytest.raises(ConfigurationError, match="nothing would ever end the run"):
        StoppingConfig(min_delta=0.1)


@pytest.mark.parametrize(
    "zero", ["max_rounds", "max_versions", "max_updates", "max_seconds"], ids=lambda name: name
)
def test_a_limit_of_zero_is_a_limit(zero):
    (condition,) = StoppingConfig(**{zero: 0}).conditions(LOSS, None)
    assert condition(Statistics()) is not None
