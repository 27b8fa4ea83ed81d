"""The append-only event log of a study: what happened, in order. Optuna and MLflow are projections of it.

One JSON object a line: `seq` from 1 without a gap, `at` in UTC, `kind`, `data`, and `crc` over the rest.
A line that a crash tore off at the end is dropped when the log is opened for writing again; damage
anywhere else is an error, because a log that lost its middle is no truth.

Kinds, and what `data` holds:
    study_created        study (resolved, JSON), fingerprint
    session_started      environment (see study.environment), resumed (bool)
    trial_started        trial_id, kind, strategy, slot, redraw, attempt, config, seed, params (Optuna's)
    epoch                trial_id, attempt, and the fields of EpochRecord
    trial_finished       the fields of TrialRecord
    trial_interrupted    trial_id, attempt, reason ("coordinator ended", "worker died: ..."), requeued (bool)
    duplicate            strategy, slot, redraw, config, params, of (trial_id)
    strategy_exhausted   strategy, slots
    search_finished      reason ("budget", "time", "exhausted")
    confirmation_selected  look, seeds, configs: {strategy: [{"config", "role": "best"|"default", "trial_id"}]}
    test_scored          look, strategy, role ("winner", "default" or "winner+default"), config_key, seed_index,
                         metrics, predictions (file)
    verdict              the "verdict", "comparisons", "recommendation" blocks of summary.json, and look
    explored             what ("data_size", "shift"), strategy, config_key, seed_index, fraction and train_images, or
                         shift; metrics, predictions (file): on the test split, after a verdict, choosing nothing
    controlled_selected  seeds, configs: {strategy: [{"parameter", "value", "config"}]}: changes of the winner
    model_logged         uri, trial_id, validation_score
    session_ended        state ("finished", "interrupted", "failed"), seconds (of this session)
"""

from __future__ import annotations

import io
import json
import os
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from harness.errors import HarnessError
from harness.files import disk_errors

_NAMES_EPOCH = ("trial_id", "attempt", "epoch")

_START = re.compile(rb'\{"seq":(\d+),"at":"([^"]+)","kind":"(\w+)","data":')


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    seq: int
    at: str
    kind: str
    data: dict[str, Any]


def encode(event: Event) -> bytes:
    """The line of an event."""
    body = {"seq": event.seq, "at": event.at, "kind": event.kind, "data": event.data}
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    crc = zlib.crc32(text.encode())
    return f'{text[:-1]},"crc":{crc}}}\n'.encode()


def decode(line: bytes, unread: Collection[str] = ()) -> Event | None:
    """The event on this line, or None where the line is torn or changed; without data where its kind is `unread`."""
    head, separator, tail = line.rpartition(b',"crc":')
    if not separator or not tail.endswith(b"}\n"):
        return None
    try:
        if zlib.crc32(b"}", zlib.crc32(head)) != int(tail[:-2]):
            return None
        start = _START.match(head)
        if start and (kind := start[3].decode()) in unread:
            return Event(int(start[1]), start[2].decode(), kind, {})
        body = _parsed(head + b"}")
        return Event(body["seq"], body["at"], body["kind"], body["data"])
    except (ValueError, KeyError, TypeError):
        return None


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


def survey(path: Path) -> Reading:
    """Read what can be read, also of a damaged log and while it is written; nothing where there is no file."""
    events: list[Event] = []
    damages: list[Damage] = []
    last = offset = 0  # seq, byte
    broken: tuple[int, int] | None = None  # line and first byte of the damage that is being passed
    with path.open("rb") if path.exists() else io.BytesIO() as stream:
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


def _without_numbers(event: Event) -> Event:
    if event.kind != "epoch":
        return event
    return Event(event.seq, event.at, event.kind, {k: event.data[k] for k in _NAMES_EPOCH if k in event.data})


def _parsed(text: bytes) -> Any:
    """What `json.loads` gives, in a third of its time and with one copy of a text that stands in many lines.

    The log of 10,000 trials holds a million values, and the same sixty names in every line.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)  # half a surrogate pair (a file name that is no UTF-8) is JSON to Python alone


def _scan(path: Path, unread: Collection[str] = ()) -> tuple[list[Event], int]:
    """All sound events, and the number of bytes they take."""
    events: list[Event] = []
    sound = 0
    with path.open("rb") as stream:
        for line in stream:
            event = decode(line, unread)
            if event is None or event.seq != len(events) + 1:
                if stream.read(1):
                    raise HarnessError(
                        f"{path.name} is damaged in line {len(events) + 1}, before its end; `harness doctor "
                        f"{path.parent.name}` says what is left of it and mends what can be mended. Else restore the "
                        "file from a copy, or start the study under another name (AS=newname)."
                    )
                break
            events.append(event)
            sound += len(line)
    return events, sound


def read_events(path: Path, unread: Collection[str] = ()) -> list[Event]:
    """All sound events of a log, also while it is written; [] where there is no file yet.

    Args:
        unread: kinds that come with empty `data`, for who does not need it: most lines tell of an epoch.
    """
    return _scan(path, unread)[0] if path.exists() else []


def first_event(path: Path) -> Event | None:
    """The event that began a log, without reading the rest; None where there is none, or it is torn."""
    if not path.exists():
        return None
    with path.open("rb") as stream:
        return decode(stream.readline())


class EventLog:
    """The log, open for its only writer. Every `append` is on the disk when it returns, unless `sync=False`.

    What it hands out of an epoch is which one it was, without its numbers: a trial's record holds them again, nobody
    asks the open log for them, and a study of 10,000 trials has 100,000 epochs. The file has them.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._events: list[Event] = []
        self._path, self._bytes = path, 0
        if path.exists():
            events, sound = _scan(path)
            self._events = [_without_numbers(event) for event in events]
            self._bytes = sound
            if sound != path.stat().st_size:
                os.truncate(path, sound)
        with disk_errors(path):
            self._stream = path.open("ab", buffering=0)

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Event:
        """Write one event.

        Raises:
            ValueError: on NaN or infinity, which no reader could take back.
            DiskFullError: the disk took none or half of it; the log is as it was before.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # a clock that is set back would make MLflow's runs end before they began
        at = max(now, self._events[-1].at) if self._events else now
        event = Event(len(self._events) + 1, at, kind, data)
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
        self._events.append(_without_numbers(event))
        return event

    def _write(self, line: bytes) -> None:
        """All of it: a nearly full disk takes a part without an error, and none of the rest."""
        while line:
            line = line[self._stream.write(line) :]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, in order."""
        return [event for event in self._events if event.kind in kinds]

    def close(self) -> None:
        self._stream.close()
