from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
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


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    with pytest.raises(ValueError):
        log.append("epoch", {"loss": float("nan")})
    log.append("epoch", {"loss": 1.0})
    log.close()
    assert len(read_events(tmp_path / "log")) == 1
