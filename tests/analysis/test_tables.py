"""Tables hold what the log says, one row each, with every column also where no row is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.analysis import tables
from harness.config.trial import TrialConfig
from harness.results.event_types import TrialFinished
from harness.results.events import EventLog, read_events
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState

MakeStudy = Callable[..., StudyFolder]


def records_of(log: Path) -> list[TrialRecord]:
    return StudyState.of(read_events(log)).records


def test_every_field_of_a_configuration_is_a_column(make_study: MakeStudy) -> None:
    table = tables.trials(records_of(make_study(until="search").events))
    assert {field.name for field in dataclasses.fields(TrialConfig)} <= set(table.columns)


def test_a_row_is_the_record(make_study: MakeStudy) -> None:
    found = records_of(make_study(until="search").events)
    table = tables.trials(found).set_index("trial_id")
    for record in found:
        row = table.loc[record.trial_id]
        assert row["head_lr"] == record.config.head_lr
        assert row["unfreeze_depth"] == record.config.unfreeze_depth
        assert row["state"] == record.state
        assert row["score"] == record.score or record.score is None
        assert row["trainable_share"] == record.trainable_share


def test_a_failed_trial_has_a_state_and_no_score(make_study: MakeStudy) -> None:
    table = tables.trials(records_of(make_study(state="out_of_memory").events))
    assert set(table["state"]) == {"out_of_memory"}
    assert table["score"].isna().all()
    assert table["score"].dtype == float


def test_epochs_are_long_and_keep_their_trial(make_study: MakeStudy) -> None:
    found = records_of(make_study().events)
    table = tables.epochs(found)
    assert len(table) == sum(len(record.epochs) for record in found)
    assert set(table["kind"]) == {"search", "confirmation"}
    one = table[table["trial_id"] == "fine_tuning/0"]
    assert list(one["epoch"]) == [1, 2, 3, 4, 5, 6]


def test_the_later_record_of_a_trial_counts(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    log = EventLog(folder.events)
    first = log.of(TrialFinished)[0].record
    log.append(TrialFinished(dataclasses.replace(first, score=0.123)))
    log.close()
    table = tables.trials(records_of(folder.events))
    assert (table["trial_id"] == first.trial_id).sum() == 1
    assert table.loc[table["trial_id"] == first.trial_id, "score"].item() == 0.123


@pytest.mark.parametrize("make", [tables.trials, tables.epochs])
def test_an_empty_log_gives_an_empty_table_with_columns(make: Callable[..., object]) -> None:
    table = make([])
    assert len(table) == 0  # type: ignore[arg-type]
    assert len(table.columns) > 5  # type: ignore[attr-defined]
