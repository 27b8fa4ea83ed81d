"""The append-only event log of a study: what happened, in order. Optuna and MLflow are projections of it.

One JSON object a line: `seq` from 1 without a gap, `at` in UTC, `kind`, `data`, and `crc` over the rest.
A line that a crash tore off at the end is dropped when the log is opened for writing again; damage
anywhere else is an error, because a log that lost its middle is no truth. A log that `harness pack` compressed
(`events.jsonl.gz`) is read in the same way, and takes no more events.

The kinds of events, and what `data` holds of each, are the classes of `event_types`. The first line also says in which
`schema` the log is written: whoever reads a log reads that line anyway, and a log never changes its schema.
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

E = TypeVar("E", bound=StudyEvent)


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    seq: int
    at: str  # UTC, ISO 8601
    data: StudyEvent

    @property
    def kind(self) -> str:
        """The word for it in the log."""
        return self.data.kind


def of_type(events: Iterable[Event], wanted: type[E]) -> list[E]:
    """What the events of this type hold, in order."""
    return [event.data for event in events if isinstance(event.data, wanted)]


def encode(event: Event) -> bytes:
    """The line of an event."""
    schema = {"schema": SCHEMA} if event.seq == 1 else {}
    data = event_types.to_json(event.data)
    body = {"seq": event.seq, "at": event.at, "kind": event.kind, **schema, "data": data}
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    crc = zlib.crc32(text.encode())
    return f'{text[:-1]},"crc":{crc}}}\n'.encode()


def decode(line: bytes) -> Event | None:
    """The event on this line, or None if the line is torn or changed, or holds no event of this schema."""
    try:
        body = _body(line)
        return (
            None if body is None else Event(body["seq"], body["at"], event_types.from_json(body["kind"], body["data"]))
        )
    except (ValueError, KeyError, TypeError):
        return None


def _body(line: bytes) -> Any:
    """The JSON of a line; None if it is torn or changed."""
    head, separator, tail = line.rpartition(b',"crc":')
    if not separator or not tail.endswith(b"}\n") or zlib.crc32(b"}", zlib.crc32(head)) != int(tail[:-2]):
        return None
    return _parsed(head + b"}")


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _open(path: Path) -> BinaryIO:
    """The log for reading, also a compressed one."""
    return open_compressed(path) if _is_compressed(path) else path.open("rb")


def _check_schema(path: Path) -> None:
    """Refuse a log of another schema by its first line. A damaged line says nothing, and is not refused here."""
    with _open(path) as stream:
        line = stream.readline()
    try:
        body = _body(line)
        found = body.get("schema", "none") if body is not None and body["seq"] == 1 else SCHEMA
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if found != SCHEMA:
        raise HarnessError(
            f"the log of {path.parent.name} has schema {found}, and this version reads and writes schema {SCHEMA}: "
            "start the study under another name (AS=newname), or use the version that wrote it."
        )


@dataclass(frozen=True)
class Damage:
    """Bytes of a log that are no event, or a place where events are missing (start == end)."""

    line: int  # of the file, from 1
    start: int  # first byte
    end: int  # behind the last one
    after: int  # seq of the sound event before it; 0 where there is none
    before: int | None  # seq of the sound event behind it; None at the end of the file
    torn: bool = False  # the unfinished last line that a crash leaves


@dataclass(frozen=True)
class Reading:
    """Everything of a log that can be read, and the places that cannot."""

    events: tuple[Event, ...]
    damages: tuple[Damage, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, up to a torn end."""
        return all(damage.torn for damage in self.damages)


def scan_log(path: Path) -> Reading:
    """Read what can be read, also of a damaged log and while it is written; nothing if there is no file.

    Raises:
        HarnessError: it is a log of another schema.
    """
    if path.exists():
        _check_schema(path)
    events: list[Event] = []
    damages: list[Damage] = []
    last = offset = 0  # seq, byte
    broken: tuple[int, int] | None = None  # line and first byte of the damage that is being passed
    with _open(path) if path.exists() else io.BytesIO() as stream:
        for number, line in enumerate(stream, 1):
            event = decode(line)
            if event is None or event.seq <= last:
                broken = broken or (number, offset)
            else:
                if broken or event.seq != last + 1:
                    where, start = broken or (number, offset)
                    damages.append(Damage(where, start, offset, last, event.seq))
                events.append(event)
                last, broken = event.seq, None
            offset += len(line)
        if broken:
            torn = not line.endswith(b"\n") and broken[0] == number
            damages.append(Damage(*broken, offset, last, None, torn))
    return Reading(tuple(events), tuple(damages))


def _parsed(text: bytes) -> Any:
    """What `json.loads` gives, in a third of its time and with one copy of a text that stands in many lines.

    The log of 10,000 trials holds a million values, and the same names in every line.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)  # half a surrogate pair (a file name that is no UTF-8) is JSON to Python alone


def _scan(path: Path) -> tuple[list[Event], int]:
    """All sound events, and the number of bytes they take."""
    _check_schema(path)
    events: list[Event] = []
    sound = 0
    with _open(path) as stream:
        for line in stream:
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
                        f"{path.parent.name}` says what is left of it and mends what can be mended. Else restore the "
                        "file from a copy, or start the study under another name (AS=newname)."
                    )
                break
            events.append(event)
            sound += len(line)
    return events, sound


def read_events(path: Path) -> list[Event]:
    """All sound events of a log, also while it is written; [] if there is no file yet.

    Raises:
        HarnessError: the log is damaged before its end, or of another schema.
    """
    return _scan(path)[0] if path.exists() else []


def first_event(path: Path) -> Event | None:
    """The event that began a log, without reading the rest; None if there is none, or it is torn.

    Raises:
        HarnessError: it is a log of another schema.
    """
    if not path.exists():
        return None
    _check_schema(path)
    with _open(path) as stream:
        return decode(stream.readline())


class EventLog:
    """The log, open for its only writer. Every `append` is on the disk when it returns, unless `sync=False`."""

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
            ValueError: on NaN or infinity, which no reader could take back.
            DiskFullError: the disk took none or half of it; the log is as it was before.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # a clock that is set back would make MLflow's runs end before they began
        at = max(now, self._events[-1].at) if self._events else now
        event = Event(len(self._events) + 1, at, data)
        line = encode(event)
        with disk_errors(self._path):
            try:
                self._write(line)
                if sync:
                    os.fsync(self._stream.fileno())
            except OSError:
                os.truncate(self._path, self._bytes)  # half a line would be damage as soon as another followed it
                raise
        self._bytes += len(line)
        self._events.append(event)
        return event

    def _write(self, line: bytes) -> None:
        """All of it: a nearly full disk takes a part without an error, and none of the rest."""
        while line:
            line = line[self._stream.write(line) :]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def of(self, wanted: type[E]) -> list[E]:
        """What the events of this type hold, in order."""
        return of_type(self._events, wanted)

    def close(self) -> None:
        self._stream.close()
