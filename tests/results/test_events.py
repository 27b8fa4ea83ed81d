from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import DiskFullError, HarnessError
from harness.results.events import EventLog, read_events


def write(path: Path, count: int = 3) -> None:
    log = EventLog(path)
    for number in range(count):
        log.append("epoch", {"number": number, "text": "µ–\n"})
    log.close()


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "log")
    events = read_events(tmp_path / "log")
    assert [e.data["number"] for e in events] == [0, 1, 2]
    assert [e.seq for e in events] == [1, 2, 3]
    assert events[0].data["text"] == "µ–\n"


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_a_torn_last_line_is_dropped_and_the_log_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    write(path)
    path.write_bytes(path.read_bytes()[:-cut])
    log = EventLog(path)
    assert len(log) == 2
    log.append("epoch", {"number": 9})
    log.close()
    assert [e.data["number"] for e in read_events(path)] == [0, 1, 9]


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"number":1', b'"number":7'))
    with pytest.raises(HarnessError, match="line 2"):
        read_events(path)


def test_damage_in_a_kind_that_is_not_read_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":7'))
    with pytest.raises(HarnessError, match="line 2"):
        read_events(path, unread={"epoch"})


def test_a_kind_that_is_not_read_keeps_its_place_and_loses_its_data(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    written = [log.append(kind, {"text": '"kind":"epoch","data":'}) for kind in ("session_started", "epoch", "verdict")]
    log.close()
    events = read_events(tmp_path / "log", unread={"epoch"})
    assert [(e.seq, e.at, e.kind) for e in events] == [(e.seq, e.at, e.kind) for e in written]
    assert [e.data for e in events] == [written[0].data, {}, written[2].data]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.text()))
@example([5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0, 2.2250738585072011e-308])
@example(["\ud800 of a name that is no UTF-8", "\U0001f52c", "\x00\x1f"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_is_read_back_to_the_last_bit(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    log = EventLog(path)
    log.append("epoch", {"values": values, "nested": [{"text": value} for value in values]})
    log.close()
    read = read_events(path)[0].data
    assert repr(read) == repr({"values": values, "nested": [{"text": value} for value in values]})


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    with pytest.raises(ValueError):
        log.append("epoch", {"loss": float("nan")})
    log.append("epoch", {"loss": 1.0})
    log.close()
    assert len(read_events(tmp_path / "log")) == 1


def test_an_event_is_on_the_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    log = EventLog(tmp_path / "log")
    log.append("trial_finished", {"number": 1})
    assert synced == [(tmp_path / "log").stat().st_size]
    log.append("epoch", {"number": 2}, sync=False)
    assert len(synced) == 1
    log.close()


def test_a_disk_that_takes_half_of_a_line_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EventLog(path)
    log.append("epoch", {"number": 0})
    before = path.read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, usual[1]))
    try:
        with pytest.raises(DiskFullError):
            log.append("epoch", {"number": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == before
    log.append("epoch", {"number": 2})
    log.close()
    assert [event.data["number"] for event in read_events(path)] == [0, 2]
