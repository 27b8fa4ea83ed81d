"""The event log and study.json, which repeats its first event: is the truth whole, and does the study's file say it?"""

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

_WHERE = "events.jsonl"
# Of a stored study: what may change, and what the fingerprint says in another form (see prepare.fingerprint).
_FREE = {*FREE_TO_CHANGE, "threads", "weights", "precision"}


def events(case: Case) -> Iterator[Finding]:
    """Every line is there and whole, and the last session has an end."""
    reading, folder = case.reading, case.folder
    case.checked.append(f"{len(reading.events)} events")
    if not folder.events.exists() or not folder.events.stat().st_size:
        if folder.checkpoints.exists() and any(folder.checkpoints.iterdir()):
            yield Finding(
                _WHERE,
                "it is gone or empty, though there are models",
                "what the study found is not known any more",
                "Restore it from a copy; without one, only `harness rm` and a new start are left.",
            )
        return
    yield from (_damaged(case, damage) for damage in reading.damages if not (damage.torn and case.running))
    if reading.damages:
        return  # what the last line says may change what follows
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
            "the last session has no end, and nobody runs it",
            "it was killed, and looks as if it ran",
            "`make study` continues it; --fix notes the end.",
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
            "what they told was not written to its end, or is lost",
            "--fix cuts them off and keeps them aside; the study goes on from there.",
            lambda: _cut(case, damage),
            first=True,
        )
    missing = damage.before - damage.after - 1
    return Finding(
        _WHERE,
        f"{size} bytes from line {damage.line} on cannot be read, and with them {missing} of "
        f"{reading.events[-1].seq} events; {len(case.records)} finished trials can still be read "
        f"(`harness log {case.folder.name}` shows them)",
        "the study does not go on, and its stores cannot be compared with it",
        "Restore the file from a copy: nothing else knows what is missing. Without a copy, start the study under "
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
    """What the next session would note first, and the end that this one could not."""
    log = EventLog(case.folder.events)
    try:
        state = StudyState.of(log)
        for trial in state.in_flight.values():
            log.append(cut_off(trial.job))
        log.append(SessionEnded("interrupted", state.open_seconds))
    finally:
        log.close()
    return f"the end of the killed session was noted, and {len(state.in_flight)} trials that it cut off"


def study_json(case: Case) -> Iterator[Finding]:
    """It can be read, and speaks of the study that the log was begun with."""
    if case.created is None:
        if not case.document and case.reading.whole:
            yield Finding(
                "study.json",
                "it cannot be read, and the log does not hold the study yet",
                "the study does not start",
                f"`harness rm {case.folder.name}` removes what is left; nothing was trained.",
            )
        return
    created = case.created
    faults = _faults(case, created)
    if faults:
        yield Finding(
            "study.json",
            faults[0],
            "the study is refused, or shown as another one than was run",
            "--fix writes it again from the log's first event; what may change is kept where it can be read.",
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
    began = StudyConfig.model_validate(created.study).model_dump(mode="json", by_alias=True)
    return [
        f"it does not fit the log: {line}"
        for line in (
            *differences(created.fingerprint, case.document.get("fingerprint")),
            *differences(_bound(began), _bound(stored)),
        )
    ]


def _bound(study: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved study may not change."""
    data = {name: value for name, value in study["data"].items() if name not in ("source", "wanted", "name")}
    confirmation = {name: value for name, value in study["confirmation"].items() if name != "seeds"}
    kept = {name: value for name, value in study.items() if name not in _FREE}
    return kept | {"data": data, "confirmation": confirmation}


def _write(case: Case, created: StudyCreated) -> str:
    """The log's study, with what the file says of what may change, as far as that makes a valid study."""
    began = created.study
    stored = case.document.get("study")
    merged = dict(began)
    if isinstance(stored, dict):
        merged |= {name: stored[name] for name in _FREE if name in stored}
        for part, names in (("data", ("source", "wanted", "name")), ("confirmation", ("seeds",))):
            if isinstance(stored.get(part), dict):
                merged[part] = began[part] | {name: stored[part][name] for name in names if name in stored[part]}
    try:
        study = StudyConfig.model_validate(merged)
    except ValueError:
        study = StudyConfig.model_validate(began)
    document = {
        "name": case.folder.name,
        "study": study.model_dump(mode="json", by_alias=True),
        "fingerprint": created.fingerprint,
    }
    atomic_write(case.folder.study_json, json.dumps(document, indent=1, ensure_ascii=True).encode())
    return "written again from the event log"
