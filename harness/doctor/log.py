"""Check the event log, and study.json, which repeats the log's first event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.atomic import atomic_write
from harness.config.study import StudyConfig
from harness.doctor.case import Case, Finding
from harness.results.event_types import SessionEnded, StudyCreated
from harness.results.events import Damage, EventLog
from harness.results.study_state import StudyState, cut_off
from harness.study.identity import FREE_TO_CHANGE, differences
from harness.study.study_files import left_without_log

_WHERE = "events.jsonl"
# Keys of a stored study that may change, or that the fingerprint holds in another form (see identity.fingerprint).
_FREE = {*FREE_TO_CHANGE, "threads", "weights", "precision"}


def events(case: Case) -> Iterator[Finding]:
    """Check that every line is sound and the last session has an end."""
    reading, folder = case.reading, case.folder
    case.checked.append(f"{len(reading.events)} events")
    if not reading.events and not case.running and (left := left_without_log(folder)):
        yield Finding(
            _WHERE,
            f"it is gone or empty, but {' and '.join(left)} are there",
            "the results of the study are lost, and it is not begun again over them",
            "Restore it from a copy. Without a copy, start the study under another name (AS=newname), or remove what "
            f"is left with `harness rm {folder.name}`.",
        )
        return
    yield from (_damaged(case, damage) for damage in reading.damages if not (damage.torn and case.running))
    if reading.damages:
        return  # after the repair the last line may be another one
    if reading.events and not isinstance(reading.events[0].data, StudyCreated):
        yield Finding(
            _WHERE,
            "its first event does not create a study",
            "nothing can be compared with it",
            "Restore it from a copy.",
        )
    elif StudyState.of(reading.events).is_running and not case.running:
        yield Finding(
            _WHERE,
            "the last session has no end, but no process runs it",
            "it was killed, but looks as if it were running",
            "`make study` continues it; --fix writes the end to the log.",
            lambda: _end(case),
            first=True,
        )


def _damaged(case: Case, damage: Damage) -> Finding:
    reading = case.reading
    size = damage.end - damage.start
    if damage.before is None:  # at the end
        what = f"line {damage.line}, the last one, is torn" if damage.torn else f"its end from line {damage.line} on"
        return Finding(
            _WHERE,
            f"{what}: {size} bytes cannot be read",
            "the events in them were not written completely, or are lost",
            "--fix cuts them off and keeps them in set-aside/; the study can continue from there.",
            lambda: _cut(case, damage),
            first=True,
        )
    missing = damage.before - damage.after - 1
    return Finding(
        _WHERE,
        f"{size} bytes from line {damage.line} on cannot be read, and with them {missing} of "
        f"{reading.events[-1].seq} events; {len(case.records)} finished trials can still be read "
        f"(`harness log {case.folder.name}` shows them)",
        "the study cannot continue, and its stores cannot be compared with the log",
        "Restore the file from a copy: nothing else holds the missing events. Without a copy, start the study under "
        "another name (AS=newname).",
    )


def _cut(case: Case, damage: Damage) -> str:
    log = case.folder.events.read_bytes()
    case.folder.set_aside.mkdir(exist_ok=True)
    with (case.folder.set_aside / "events.torn").open("ab") as kept:
        kept.write(log[damage.start :] + b"\n")
    atomic_write(case.folder.events, log[: damage.start])
    return f"{damage.end - damage.start} bytes from line {damage.line} on were cut off (kept in set-aside/events.torn)"


def _end(case: Case) -> str:
    """Write the interruptions that the next session would write first, and the end of the killed session."""
    log = EventLog(case.folder.events)
    try:
        state = StudyState.of(log)
        for trial in state.in_flight.values():
            log.append(cut_off(trial.job))
        log.append(SessionEnded("interrupted", state.open_seconds))
    finally:
        log.close()
    return f"the end of the killed session was written, with {len(state.in_flight)} interrupted trials"


def study_json(case: Case) -> Iterator[Finding]:
    """Check that study.json can be read and holds the study of the log's first event."""
    if case.created is None:
        return  # `events` says so if anything was run
    created = case.created
    faults = _faults(case, created)
    if faults:
        yield Finding(
            "study.json",
            faults[0],
            "the study is refused, or is shown with other settings than it was run with",
            "--fix writes it again from the log's first event; values that may change are kept if they can be read.",
            lambda: _write(case, created),
            first=True,
        )


def _faults(case: Case, created: StudyCreated) -> list[str]:
    if not case.document:
        return ["it is gone or cannot be read"]
    if case.document.get("name") != case.folder.name:
        return ["it names another study"]
    try:
        stored = StudyConfig.model_validate(case.document.get("study")).model_dump(mode="json", by_alias=True)
    except ValueError as error:
        return [f"its study is not valid ({' '.join(str(error).split())[:120]})"]
    logged = StudyConfig.model_validate(created.study).model_dump(mode="json", by_alias=True)
    return [
        f"it does not fit the log: {line}"
        for line in (
            *differences(created.fingerprint, case.document.get("fingerprint")),
            *differences(_fixed(logged), _fixed(stored)),
        )
    ]


def _fixed(study: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved study that may not change."""
    data = {name: value for name, value in study["data"].items() if name not in ("source", "wanted", "name")}
    confirmation = {name: value for name, value in study["confirmation"].items() if name != "seeds"}
    kept = {name: value for name, value in study.items() if name not in _FREE}
    return kept | {"data": data, "confirmation": confirmation}


def _write(case: Case, created: StudyCreated) -> str:
    """Write the log's study with the file's values of the keys that may change, if that is a valid study."""
    logged = created.study
    stored = case.document.get("study")
    merged = dict(logged)
    if isinstance(stored, dict):
        merged |= {name: stored[name] for name in _FREE if name in stored}
        for part, names in (("data", ("source", "wanted", "name")), ("confirmation", ("seeds",))):
            if isinstance(stored.get(part), dict):
                merged[part] = logged[part] | {name: stored[part][name] for name in names if name in stored[part]}
    try:
        study = StudyConfig.model_validate(merged)
    except ValueError:
        study = StudyConfig.model_validate(logged)
    document = {
        "name": case.folder.name,
        "study": study.model_dump(mode="json", by_alias=True),
        "fingerprint": created.fingerprint,
    }
    atomic_write(case.folder.study_json, json.dumps(document, indent=1, ensure_ascii=True).encode())
    return "written again from the event log"
