"""One changed byte of a log is found and set right; more than that is told, and left."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from harness.results.event_types import EpochDone
from harness.results.events import EventLog, survey
from harness.results.repair import repaired


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = EventLog(tmp_path / "study" / "events.jsonl")
    for number in range(12):
        log.append(EpochDone("µ–\n" * number, 1, number, number / 7))
    log.close()
    return tmp_path / "study" / "events.jsonl"


def test_a_whole_log_is_read_whole(path: Path) -> None:
    reading = survey(path)
    assert [event.seq for event in reading.events] == list(range(1, 13))
    assert reading.damages == () and reading.whole


def test_any_single_changed_byte_is_set_right(path: Path) -> None:
    """Newlines, separators, checksums and the ends of lines too: every byte of the file, one after the other."""
    whole, rng = path.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= rng.randrange(1, 256)
        path.write_bytes(changed)
        [damage] = survey(path).damages
        lines = repaired(bytes(changed), damage)
        assert lines is not None, place
        assert changed[: damage.start] + lines + changed[damage.end :] == whole


def test_a_colon_that_became_a_digit_of_the_checksum_is_set_right(tmp_path: Path) -> None:
    """Checksums of nine digits and fewer take it for one of their own; of 40 lines nine or so have such a one."""
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(40):
        log.append(EpochDone("fine_tuning/0", 1, number, 0.5))
    log.close()
    whole = (tmp_path / "events.jsonl").read_bytes()
    for place in (found.end() - 1 for found in re.finditer(b',"crc":', whole)):
        for digit in b"0123456789":
            changed = bytearray(whole)
            changed[place] = digit
            (tmp_path / "events.jsonl").write_bytes(changed)
            [damage] = survey(tmp_path / "events.jsonl").damages
            lines = repaired(bytes(changed), damage)
            assert lines is not None, (place, digit)
            assert changed[: damage.start] + lines + changed[damage.end :] == whole


@pytest.mark.parametrize("cut", [1, 2])
def test_a_last_line_that_lacks_its_end_alone_is_completed(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    [damage] = survey(path).damages
    assert damage.torn
    assert whole[: damage.start] + (repaired(path.read_bytes(), damage) or b"") == whole


@pytest.mark.parametrize("places", [(3, 9), (20, 21), (30, 200)])
def test_two_changed_bytes_are_not_guessed_at(path: Path, places: tuple[int, int]) -> None:
    changed = bytearray(path.read_bytes())
    for place in places:
        changed[place] ^= 0x11
    path.write_bytes(changed)
    reading = survey(path)
    assert not reading.whole
    assert [repaired(bytes(changed), damage) for damage in reading.damages] == [None]


def test_what_lies_around_a_damage_is_read_and_the_damage_has_its_place(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4:6] = [b"garbage\n", b"more of it\n"]
    path.write_bytes(b"".join(lines) + b'{"seq":13,"at"')
    reading = survey(path)
    assert [event.seq for event in reading.events] == [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    middle, end = reading.damages
    assert (middle.line, middle.after, middle.before, middle.torn) == (5, 4, 7, False)
    assert (end.line, end.after, end.before, end.torn) == (13, 12, None, True)


def test_lines_that_are_missing_without_a_trace_are_noticed(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[5:]))
    [damage] = survey(path).damages
    assert (damage.line, damage.start, damage.after, damage.before) == (4, damage.end, 3, 6)
    assert repaired(path.read_bytes(), damage) is None
