from __future__ import annotations

import dataclasses
import json
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import DiskFullError, HarnessError
from harness.results.event_types import SCHEMA, EpochDone, SessionStarted
from harness.results.events import EventLog, first_event, of_type, read_events, scan_log


def write(path: Path, count: int = 3) -> None:
    log = EventLog(path)
    for number in range(count):
        log.append(epoch(number))
    log.close()


def epoch(number: int) -> EpochDone:
    return EpochDone("fine_tuning/0", 1, number, score=number / 7)


def numbers(path: Path) -> list[int]:
    return [done.epoch for done in of_type(read_events(path), EpochDone)]


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "log")
    events = read_events(tmp_path / "log")
    assert [event.data for event in events] == [epoch(0), epoch(1), epoch(2)]
    assert [event.seq for event in events] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_a_torn_last_line_is_dropped_and_the_log_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    write(path)
    path.write_bytes(path.read_bytes()[:-cut])
    log = EventLog(path)
    assert len(log) == 2
    log.append(epoch(9))
    log.close()
    assert numbers(path) == [0, 1, 9]


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":7'))
    with pytest.raises(HarnessError, match="line 2"):
        read_events(path)


def line_of(body: dict[str, Any]) -> bytes:
    """A line as a log of any version writes it, with its checksum."""
    text = json.dumps(body, separators=(",", ":"))
    return f'{text[:-1]},"crc":{zlib.crc32(text.encode())}}}\n'.encode()


OLD: dict[str, Any] = {"seq": 1, "at": "2026-01-01T00:00:00.000+00:00", "kind": "study_created", "data": {"study": {}}}


@pytest.mark.parametrize("schema", [{}, {"schema": SCHEMA + 1}, {"schema": None}])
@pytest.mark.parametrize("read", [read_events, scan_log, first_event, EventLog])
def test_a_log_of_another_schema_or_of_none_is_refused_in_one_line(
    tmp_path: Path, schema: dict[str, Any], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "cells" / "events.jsonl"
    path.parent.mkdir()
    path.write_bytes(line_of(OLD | schema) + line_of({**OLD, "seq": 2, "kind": "nonsense"}))
    before = path.read_bytes()
    with pytest.raises(HarnessError) as refused:
        read(path)
    found = schema.get("schema", "none")
    assert str(refused.value) == (
        f"the log of cells must have schema {SCHEMA}, but has {found}; "
        "start the study under another name (AS=newname), or use the version that wrote it."
    )
    assert path.read_bytes() == before


def test_the_first_line_alone_says_the_schema(tmp_path: Path) -> None:
    write(tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("schema") for line in lines] == [SCHEMA, None, None]


def test_a_damaged_first_line_is_damage_and_no_other_schema(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"schema":', b'"scheme":', 1))
    assert [damage.line for damage in scan_log(path).damages] == [1]
    with pytest.raises(HarnessError, match="line 1"):
        read_events(path)


def test_a_line_whose_fields_are_not_those_of_its_kind_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    wrong = {"seq": 4, "at": "2026-01-01T00:00:00.000+00:00", "kind": "epoch", "data": {"epoch": 3}}
    path.write_bytes(path.read_bytes() + line_of(wrong))
    [damage] = scan_log(path).damages
    assert (damage.line, damage.torn) == (4, False)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.text()))
@example([5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0, 2.2250738585072011e-308])
@example(["\ud800 of a name that is no UTF-8", "\U0001f52c", "\x00\x1f"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_is_read_back_to_the_last_bit(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    log = EventLog(path)
    facts = {"values": values, "nested": [{"text": value} for value in values]}
    log.append(SessionStarted(facts, resumed=False))
    log.close()
    assert repr(read_events(path)[0].data) == repr(SessionStarted(facts, resumed=False))


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    with pytest.raises(ValueError):
        log.append(dataclasses.replace(epoch(0), score=float("nan")))
    log.append(epoch(0))
    log.close()
    assert len(read_events(tmp_path / "log")) == 1


def test_an_event_is_on_the_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    log = EventLog(tmp_path / "log")
    log.append(epoch(1))
    assert synced == [(tmp_path / "log").stat().st_size]
    log.append(epoch(2), sync=False)
    assert len(synced) == 1
    log.close()


def test_a_disk_that_takes_half_of_a_line_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EventLog(path)
    log.append(epoch(0))
    before = path.read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, usual[1]))
    try:
        with pytest.raises(DiskFullError):
            log.append(epoch(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == before
    log.append(epoch(2))
    log.close()
    assert [done.epoch for done in of_type(read_events(path), EpochDone)] == [0, 2]
