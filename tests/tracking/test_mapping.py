"""Events become names, tags, parameters and metrics that read well and that MLflow takes whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from harness.config.trial import TrialConfig
from harness.results.event_types import StudyCreated, VerdictReached
from harness.results.records import TrialRecord
from harness.tracking import mapping as shown

AT = "2026-11-21T10:00:00.000+00:00"


def test_names_of_search_runs_say_strategy_slot_backbone_and_depth(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    job = record_of("fine_tuning/3", config_of(depth=3), slot=3).job
    assert shown.run_name(job, None) == "fine_tuning 03 · resnet18 · depth 3"


def test_names_of_confirmation_runs_say_role_and_seed(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    job = record_of("confirmation/fine_tuning/abc/2", config_of(), kind="confirmation", slot=2).job
    assert shown.run_name(job, "best") == "confirmation · fine_tuning best · seed 2"


def test_a_second_attempt_has_a_name_and_key_of_its_own(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    job = record_of("fine_tuning/3", config_of(), slot=3, attempt=2).job
    assert shown.run_name(job, None).endswith("· attempt 2")
    assert shown.trial_tags(job, None)["harness.key"] == "fine_tuning/3#2"


def test_every_field_of_the_configuration_becomes_a_parameter_of_the_same_name(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    config = dataclasses.replace(config_of(), layer_decay=0.65, unfreeze_schedule="head_first", head_fraction=0.4)
    params = shown.trial_params(record_of("fine_tuning/1", config))
    for name, value in config.to_json().items():
        assert params[name] == (value if isinstance(value, str) else json.dumps(value)), name


def test_rates_are_also_given_as_numbers_on_a_log_scale(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    params = shown.trial_params(record_of("fine_tuning/1", config_of(head_lr=1e-3)))
    assert float(params["log10_head_lr"]) == -3
    assert float(params["log10_backbone_lr"]) == -4


def test_feature_extraction_has_no_backbone_rate_rather_than_the_word_none(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    params = shown.trial_params(record_of("feature_extraction/1", config_of("feature_extraction")))
    assert not {"backbone_lr", "log10_backbone_lr"} & params.keys()
    assert "None" not in params.values() and "null" not in params.values()


def test_every_epoch_gives_each_metric_once_at_its_step(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    record = record_of("fine_tuning/1", config_of(), epochs=4)
    points = shown.trial_metrics(record, AT)
    names = {"train_loss", "validation_loss", "validation_accuracy", "validation_balanced_accuracy"}
    names |= {"validation_macro_f1", "epoch_seconds", "head_lr", "backbone_lr"}
    for name in names:
        assert [point.step for point in points if point.name == name] == [1, 2, 3, 4], name
    assert {point.name for point in points if point.step == 0} >= {"score", "seconds_alone", "trainable_share"}


def test_the_same_record_always_gives_the_same_points_and_times(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    record = record_of("fine_tuning/1", config_of())
    assert shown.trial_metrics(record, AT) == shown.trial_metrics(record, AT)


def test_infinite_and_missing_values_are_never_sent(
    config_of: Callable[..., TrialConfig], record_of: Callable[..., TrialRecord]
) -> None:
    epoch = dataclasses.replace(
        record_of("fine_tuning/1", config_of()).epochs[0],
        train_loss=float("nan"),
        validation={"loss": float("inf"), "accuracy": 0.5},
    )
    record = record_of("fine_tuning/1", config_of(), score=None, state="diverged")
    record = dataclasses.replace(record, epochs=(epoch,))
    sent = {point.name for point in shown.trial_metrics(record, AT)}
    assert "validation_accuracy" in sent
    assert not {"train_loss", "validation_loss", "score", "best_epoch", "device_memory_bytes"} & sent


def test_long_texts_say_how_much_is_missing() -> None:
    cut = shown.shortened("x" * 7000, shown.PARAM_LIMIT)
    assert len(cut) == shown.PARAM_LIMIT
    assert "7000 characters" in cut
    assert shown.shortened("short", shown.PARAM_LIMIT) == "short"


def test_the_study_is_flattened_and_its_ranges_stay_whole() -> None:
    study = {"seed": 0, "data": {"source": "rendered_cells"}, "search": {"head_lr": {"low": 1e-4, "high": 0.1}}}
    params = shown.study_params(StudyCreated(study, {"data": "ab"}), "digest")
    assert params["data.source"] == "rendered_cells"
    assert json.loads(params["search.head_lr"]) == {"low": 1e-4, "high": 0.1}
    assert params["data_digest"] == "digest"


def test_a_tracking_address_is_no_parameter() -> None:
    study = {"seed": 0, "tracking_uri": "http://me:secret@server"}
    assert "secret" not in str(shown.study_params(StudyCreated(study, {}), None))


@pytest.mark.parametrize(("objective", "ascending"), [("balanced_accuracy", False), ("log_loss", True)])
def test_the_saved_view_puts_the_best_trials_first(objective: str, ascending: bool) -> None:
    assert json.loads(shown.view_state(objective))["orderByAsc"] is ascending


def test_a_verdict_gives_its_interval_and_a_missing_one_its_reason() -> None:
    verdict = {"difference": 0.03, "ci95": [0.01, 0.05], "outcome": "fine_tuning"}
    points = shown.verdict_points(VerdictReached(2, verdict, None, [], None), 5)
    assert {(point.name, point.value, point.step) for point in points} == {
        ("difference", 0.03, 2),
        ("difference_ci95_low", 0.01, 2),
        ("difference_ci95_high", 0.05, 2),
    }
    nothing = VerdictReached(1, None, "a side is missing", [], None)
    assert shown.verdict_points(nothing, 5) == []
    assert shown.verdict_tags(nothing, "a side is missing") == {"outcome": "none", "verdict": "a side is missing"}
