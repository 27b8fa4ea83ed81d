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
    controlled_selected  seeds, configs: {strategy: [{"knob", "value", "config"}]}: changes of the winner
    model_logged         uri, trial_id, validation_score
    session_ended        state ("finished", "interrupted", "failed"), seconds (of this session)
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError

_NAMES_EPOCH = ("trial_id", "attempt", "epoch")


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    seq: int
    at: str
    kind: str
    data: dict[str, Any]


def _encode(event: Event) -> bytes:
    body = {"seq": event.seq, "at": event.at, "kind": event.kind, "data": event.data}
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    crc = zlib.crc32(text.encode())
    return f'{text[:-1]},"crc":{crc}}}\n'.encode()


def _decode(line: bytes) -> Event | None:
    """The event on this line, or None where the line is torn or changed."""
    head, separator, tail = line.rpartition(b',"crc":')
    if not separator or not tail.endswith(b"}\n"):
        return None
    try:
        if zlib.crc32(head + b"}") != int(tail[:-2]):
            return None
        body = json.loads(head + b"}")
    except ValueError:
        return None
    return Event(body["seq"], body["at"], body["kind"], body["data"])


def _without_numbers(event: Event) -> Event:
    if event.kind != "epoch":
        return event
    return Event(event.seq, event.at, event.kind, {k: event.data[k] for k in _NAMES_EPOCH if k in event.data})


def _scan(path: Path) -> tuple[list[Event], int]:
    """All sound events, and the number of bytes they take."""
    events: list[Event] = []
    sound = 0
    with path.open("rb") as stream:
        for line in stream:
            event = _decode(line)
            if event is None or event.seq != len(events) + 1:
                if stream.read(1):
                    raise HarnessError(
                        f"{path.name} is damaged in line {len(events) + 1}, before its end; "
                        "restore the file from a copy, or start the study under another name (AS=newname)."
                    )
                break
            events.append(event)
            sound += len(line)
    return events, sound


def read_events(path: Path) -> list[Event]:
    """All sound events of a log, also while it is written; [] where there is no file yet."""
    return _scan(path)[0] if path.exists() else []


class EventLog:
    """The log, open for its only writer. Every `append` is on the disk when it returns, unless `sync=False`.

    What it hands out of an epoch is which one it was, without its numbers: a trial's record holds them again, nobody
    asks the open log for them, and a study of 10,000 trials has 100,000 epochs. The file has them.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._events: list[Event] = []
        if path.exists():
            events, sound = _scan(path)
            self._events = [_without_numbers(event) for event in events]
            if sound != path.stat().st_size:
                os.truncate(path, sound)
        self._stream: IO[bytes] = path.open("ab")

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Event:
        """Write one event; raises ValueError on NaN or infinity, which no reader could take back."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = Event(len(self._events) + 1, now, kind, data)
        self._stream.write(_encode(event))
        self._stream.flush()
        if sync:
            os.fsync(self._stream.fileno())
        self._events.append(_without_numbers(event))
        return event

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, in order."""
        return [event for event in self._events if event.kind in kinds]

    def close(self) -> None:
        self._stream.close()
