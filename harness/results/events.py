"""Write and read the append-only event log of a study: everything that happened, in order.

Optuna's storage and MLflow are made from this log. Each line is one JSON object: `seq` counts from 1 without a gap,
`at` is a time in UTC, then come `kind`, `data`, and `crc`, a checksum of the rest. If a crash cut off the last line,
that line is dropped when the log is opened for writing again. Damage anywhere else is an error, because the rest of the
log cannot be trusted without the missing events. A log that `harness pack` compressed (`events.jsonl.gz`) is read in
the same way, and it cannot be opened for writing.

The kinds of events, and the fields of `data`, are the classes of `event_types`. The first line also holds the `schema`
of the log: every reader reads that line anyway, and a log never changes its schema.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic_core import from_json

from harness.atomic import disk_errors
from harness.errors import ConfigError, HarnessError
from harness.results import event_types
from harness.results.compressed import open_compressed
from harness.results.event_types import SCHEMA, StudyEvent
from harness.results.paths import MOST_JSON

E = TypeVar("E", bound=StudyEvent)


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    seq: int
    at: str  # UTC, ISO 8601
    data: StudyEvent

    @property
    def kind(self) -> str:
        """The name of the event's kind in the log."""
        return self.data.kind


def of_type(events: Iterable[Event], wanted: type[E]) -> list[E]:
    """Return the data of the events of one type, in order."""
    return [event.data for event in events if isinstance(event.data, wanted)]


def encode(event: Event) -> bytes:
    """Return the event as a line of the log."""
    schema = {"schema": SCHEMA} if event.seq == 1 else {}
    data = event_types.to_json(event.data)
    body = {"seq": event.seq, "at": event.at, "kind": event.kind, **schema, "data": data}
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    crc = zlib.crc32(text.encode())
    return f'{text[:-1]},"crc":{crc}}}\n'.encode()


def decode(line: bytes) -> Event | None:
    """Return the event on this line; None if the line is torn or damaged, or is not an event of this schema."""
    try:
        body = _body(line)
        if body is None:
            return None
        return Event(body["seq"], body["at"], event_types.from_json(body["kind"], body["data"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _body(line: bytes) -> Any:
    """Return the JSON object of a line; None if the line is torn or its checksum does not fit."""
    head, separator, tail = line.rpartition(b',"crc":')
    if not separator or not tail.endswith(b"}\n") or zlib.crc32(b"}", zlib.crc32(head)) != int(tail[:-2]):
        return None
    return _parsed(head + b"}")


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _open(path: Path) -> BinaryIO:
    """The log for reading, also a compressed one; raises HarnessError if it is no file or must not be read."""
    try:
        return open_compressed(path) if _is_compressed(path) else path.open("rb")
    except OSError as error:
        raise HarnessError(f"the log of {path.parent.name} cannot be read ({error.strerror}).") from error


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line and its number of bytes; of a line that is longer than any event, only the last byte.

    Such a line is no event, so it is not kept in memory: the log may be from someone else.
    """
    while line := stream.readline(MOST_JSON):
        size = len(line)
        while size >= MOST_JSON and not line.endswith(b"\n") and (piece := stream.readline(MOST_JSON)):
            line, size = piece[-1:], size + len(piece)
        yield line, size


def _check_schema(path: Path) -> None:
    """Refuse a log whose first line has another schema. If that line is damaged, its readers report it."""
    with _open(path) as stream:
        line = stream.readline(MOST_JSON)
    try:
        body = _body(line)
        found = body.get("schema", "none") if body is not None and body["seq"] == 1 else SCHEMA
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if found != SCHEMA:
        raise HarnessError(
            f"the log of {path.parent.name} must have schema {SCHEMA}, but has {found}; "
            "start the study under another name (AS=newname), or use the version that wrote it."
        )


@dataclass(frozen=True)
class Damage:
    """Bytes of a log that cannot be read as events, or a place where events are missing (start == end)."""

    line: int  # 1-based line of the file
    start: int  # first damaged byte
    end: int  # first byte after the damage
    after: int  # seq of the last readable event before the damage; 0 if there is none
    before: int | None  # seq of the first readable event after the damage; None at the end of the file
    torn: bool = False  # whether it is an unfinished last line, as a crash leaves it


@dataclass(frozen=True)
class Reading:
    """The events of a log that can be read, and the damaged places."""

    events: tuple[Event, ...]
    damages: tuple[Damage, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged, except for a torn last line."""
        return all(damage.torn for damage in self.damages)


def scan_log(path: Path) -> Reading:
    """Read every event that can be read, also from a damaged log and while the log is written.

    Returns:
        No events and no damage if there is no file.

    Raises:
        HarnessError: the log has another schema.
    """
    if path.exists():
        _check_schema(path)
    events: list[Event] = []
    damages: list[Damage] = []
    last = offset = 0  # seq, byte
    broken: tuple[int, int] | None = None  # line and first byte of the damage that the loop is in
    with _open(path) if path.exists() else io.BytesIO() as stream:
        for number, (line, size) in enumerate(_lines(stream), 1):
            event = decode(line)
            if event is None or event.seq <= last:
                broken = broken or (number, offset)
            else:
                if broken or event.seq != last + 1:
                    where, start = broken or (number, offset)
                    damages.append(Damage(where, start, offset, last, event.seq))
                events.append(event)
                last, broken = event.seq, None
            offset += size
        if broken:
            torn = not line.endswith(b"\n") and broken[0] == number
            damages.append(Damage(*broken, offset, last, None, torn))
    return Reading(tuple(events), tuple(damages))


def _parsed(text: bytes) -> Any:
    """Parse JSON as `json.loads` does, in a third of the time and with one copy of each text that occurs many times.

    The log of 10,000 trials holds a million values, and every line repeats the same names.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)  # only Python accepts half a surrogate pair, as a file name that is not UTF-8 gives


def _scan(path: Path) -> tuple[list[Event], int]:
    """Return all events up to a torn last line, and the number of bytes they take."""
    _check_schema(path)
    events: list[Event] = []
    sound = 0
    with _open(path) as stream:
        for line, size in _lines(stream):
            event = decode(line)
            if event is None or event.seq != len(events) + 1:
                rest = stream.read(1)
                if rest and _is_compressed(path):
                    raise HarnessError(
                        f"{path.name} is damaged in line {len(events) + 1}: take the study's files anew from where "
                        "they came from."
                    )
                if rest:
                    raise HarnessError(
                        f"{path.name} is damaged in line {len(events) + 1}, before its end; `harness doctor "
                        f"{path.parent.name}` says what is left of it and repairs what can be repaired. Otherwise "
                        "restore the file from a copy, or start the study under another name (AS=newname)."
                    )
                break
            events.append(event)
            sound += size
    return events, sound


def read_events(path: Path) -> list[Event]:
    """Return all events of a log, also while it is written; [] if there is no file yet.

    Raises:
        HarnessError: the log is damaged before its end, or has another schema.
    """
    return _scan(path)[0] if path.exists() else []


def first_event(path: Path) -> Event | None:
    """Return the first event of a log without reading the rest; None if there is none or its line is torn.

    Raises:
        HarnessError: the log has another schema.
    """
    if not path.exists():
        return None
    _check_schema(path)
    with _open(path) as stream:
        return decode(stream.readline(MOST_JSON))


class EventLog:
    """The log, opened by its only writer. Every `append` is on the disk when it returns, unless `sync=False`."""

    def __init__(self, path: Path) -> None:
        if _is_compressed(path):
            raise ConfigError(
                f"{path.parent.name} holds a packed log ({path.name}), which can be read and not continued: "
                "run the study under another name (AS=newname)."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._events: list[Event] = []
        self._path, self._bytes = path, 0
        if path.exists():
            self._events, self._bytes = _scan(path)
            if self._bytes != path.stat().st_size:
                os.truncate(path, self._bytes)
        with disk_errors(path):
            self._stream = path.open("ab", buffering=0)

    def append(self, data: StudyEvent, *, sync: bool = True) -> Event:
        """Write one event.

        Raises:
            ValueError: the event holds NaN or infinity, which are not JSON, or is longer than a reader takes.
            DiskFullError: the disk is full; the log is as it was before.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # if the clock is set back, times must not: otherwise MLflow's runs would end before they began
        at = max(now, self._events[-1].at) if self._events else now
        event = Event(len(self._events) + 1, at, data)
        line = encode(event)
        if len(line) > MOST_JSON:
            raise ValueError(f"an event must have at most {MOST_JSON:,} bytes, but this {event.kind} has {len(line):,}")
        with disk_errors(self._path):
            try:
                self._write(line)
                if sync:
                    os.fsync(self._stream.fileno())
            except OSError:
                os.truncate(self._path, self._bytes)  # half a line, followed by another, would be damage
                raise
        self._bytes += len(line)
        self._events.append(event)
        return event

    def _write(self, line: bytes) -> None:
        """Write all bytes. A nearly full disk accepts a part without an error and fails only at the next write."""
        while line:
            line = line[self._stream.write(line) :]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def of(self, wanted: type[E]) -> list[E]:
        """Return the data of the events of one type, in order."""
        return of_type(self._events, wanted)

    def close(self) -> None:
        """Close the file; nothing can be appended afterwards."""
        self._stream.close()
