"""Tables hold what the log says, one row each, with every column also where no row is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from harness.config.trial import TrialConfig
from harness.report import tables
from harness.results.events import EventLog, read_events
from harness.results.home import StudyFolder

MakeStudy = Callable[..., StudyFolder]


def test_every_field_of_a_configuration_is_a_column(make_study: MakeStudy) -> None:
    table = tables.trials(tables.records(read_events(make_study(until="search").events)))
    assert {field.name for field in dataclasses.fields(TrialConfig)} <= set(table.columns)


def test_a_row_is_the_record(make_study: MakeStudy) -> None:
    found = tables.records(read_events(make_study(until="search").events))
    table = tables.trials(found).set_index("trial_id")
    for record in found:
        row = table.loc[record.trial_id]
        assert row["head_lr"] == record.config.head_lr
        assert row["unfreeze_depth"] == record.config.unfreeze_depth
        assert row["state"] == record.state
        assert row["score"] == record.score or record.score is None
        assert row["trainable_share"] == record.trainable_share


def test_a_failed_trial_has_a_state_and_no_score(make_study: MakeStudy) -> None:
    table = tables.trials(tables.records(read_events(make_study(state="out_of_memory").events)))
    assert set(table["state"]) == {"out_of_memory"}
    assert table["score"].isna().all()
    assert table["score"].dtype == float


def test_epochs_are_long_and_keep_their_trial(make_study: MakeStudy) -> None:
    found = tables.records(read_events(make_study().events))
    table = tables.epochs(found)
    assert len(table) == sum(len(record.epochs) for record in found)
    assert set(table["kind"]) == {"search", "confirmation"}
    one = table[table["trial_id"] == "fine_tuning/0"]
    assert list(one["epoch"]) == [1, 2, 3, 4, 5, 6]


def test_confirmations_know_their_default(make_study: MakeStudy) -> None:
    events = read_events(make_study().events)
    table = tables.confirmations(tables.records(events), events)
    assert set(table["seed_index"]) == {0, 1, 2}
    assert table.groupby("strategy")["is_default"].sum().eq(3).all()


def test_a_default_that_is_also_the_best_is_known_as_the_default(make_study: MakeStudy) -> None:
    events = read_events(make_study().events)
    for event in events:
        if event.kind == "confirmation_selected":
            event.data["configs"] = {
                strategy: [{**entry, "role": "best+default"} for entry in entries if entry["role"] == "default"]
                for strategy, entries in event.data["configs"].items()
            }
    table = tables.confirmations(tables.records(events), events)
    assert table.groupby("strategy")["is_default"].sum().eq(3).all()


def test_test_scores_have_every_metric(make_study: MakeStudy) -> None:
    table = tables.test_scores(read_events(make_study().events))
    assert len(table) == 12
    assert table[["balanced_accuracy", "calibration_error"]].notna().all(axis=None)


def test_the_later_record_of_a_trial_counts(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    log = EventLog(folder.events)
    first = next(e.data for e in log if e.kind == "trial_finished")
    log.append("trial_finished", {**first, "score": 0.123})
    log.close()
    table = tables.trials(tables.records(read_events(folder.events)))
    assert (table["trial_id"] == first["trial_id"]).sum() == 1
    assert table.loc[table["trial_id"] == first["trial_id"], "score"].item() == 0.123


@pytest.mark.parametrize("make", [tables.trials, tables.epochs, tables.confirmations, tables.test_scores])
def test_an_empty_log_gives_an_empty_table_with_columns(make: Callable[..., object]) -> None:
    table = make([])
    assert len(table) == 0  # type: ignore[arg-type]
    assert len(table.columns) > 5  # type: ignore[attr-defined]
