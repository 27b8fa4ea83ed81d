"""The event log as a person reads it: one line for whatever happened, in order. `harness log` prints it.

No path, page or database is needed beside the log, and no line can write control characters to a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from harness.config.study import KNOBS
from harness.data.names import clean
from harness.report import wording
from harness.report.labels import config_text, idle
from harness.report.verdict_text import describe
from harness.results.events import Damage, Event, Reading
from harness.results.metrics import METRICS

_FIRST = ("backbone", "unfreeze_depth", "batchnorm", "head_lr", "backbone_lr")  # what a configuration is known by
_SHORT = {"unfreeze_depth": "depth", "head_lr": "head rate", "backbone_lr": "backbone rate"}
_MOST = 7  # knobs in a line
_WENT_WRONG = ("diverged", "out_of_memory", "failed")


@dataclass(frozen=True)
class Line:
    """Something that happened."""

    at: str  # UTC, ISO 8601
    text: str
    problem: bool = False
    epoch: bool = False


def chronicle(reading: Reading, objective: str, running: int | None = None) -> list[Line]:
    """Every event as a line, with the end of sessions that have none, and the places that cannot be read.

    Args:
        objective: what the scores are; of the log's own study where it is readable.
        running: process that works on the study now; None: nobody does.
    """
    teller = _Teller(objective, reading.events)
    gaps = {damage.after: damage for damage in reading.damages}
    at = reading.events[0].at if reading.events else ""
    lines = [_unreadable(at, gaps.pop(0))] if 0 in gaps else []
    for event in reading.events:
        lines += teller.tell(event)
        at = event.at
        if event.seq in gaps:
            lines.append(_unreadable(at, gaps.pop(event.seq)))
    return lines + teller.standing(at, running)


def told(lines: Sequence[Line], zone: tzinfo | None, name: str) -> Iterator[str]:
    """The lines with their times, and a line for each new day; control characters are written as escapes.

    Args:
        zone: None is the user's own.
        name: of the zone; "" takes the name the zone has on that day.
    """
    day = ""
    for line in lines:
        moment = datetime.fromisoformat(line.at).astimezone(zone) if line.at else None
        today = f"{moment:%Y-%m-%d} ({name or moment.tzname()})" if moment else ""
        if today and today != day:
            yield today
            day = today
        yield clean(f"{moment:%H:%M:%S}  {line.text}" if moment else f"--:--:--  {line.text}")


class _Teller:
    """Puts events into words; remembers which session it is in, and which trials have begun."""

    def __init__(self, objective: str, events: Sequence[Event]) -> None:
        self._objective = objective
        self._varied = _varied(events)
        self._in_flight: dict[tuple[str, int], tuple[str, str]] = {}  # when it began, and what it is
        self._sessions = 0
        self._open = ""  # when the session began that has no end yet
        self._last = ""  # time of the event before

    def tell(self, event: Event) -> list[Line]:
        """The lines of one event; none where a later one says it all."""
        lines: list[Line] = []
        if event.kind == "session_started" and self._open:
            lines.append(Line(self._last, f"session {self._sessions} has no end: it was killed", problem=True))
        self._last = event.at
        method: Callable[[dict[str, Any]], Line | str | None] | None = getattr(self, f"_{event.kind}", None)
        try:
            made = method(event.data) if method else event.kind
        except (KeyError, TypeError, ValueError, AttributeError):  # of another version: its kind is all we know
            made = event.kind
        if isinstance(made, str):
            made = Line("", made)
        if event.kind == "session_started":
            self._open = event.at
        elif event.kind == "session_ended":
            self._open = ""
        return lines if made is None else [*lines, Line(event.at, made.text, made.problem, made.epoch)]

    def standing(self, at: str, running: int | None) -> list[Line]:
        """How things stand behind the last event."""
        if running is not None:
            training = [Line(began, f"{text}: training since then") for began, text in self._in_flight.values()]
            return [*training, Line(at, f"the study runs now (process {running})")]
        if not self._open:
            return []
        cut = [
            Line(began, f"{text}: begun then, and cut off", problem=True) for began, text in self._in_flight.values()
        ]
        return [*cut, Line(at, f"session {self._sessions} has no end: it was killed", problem=True)]

    def _study_created(self, data: dict[str, Any]) -> str:
        study = data["study"]
        self._objective = study.get("objective", self._objective)
        return (
            f"study created: {self._metric()}, {study['trials']} trials of {study['epochs']} epochs for each of "
            f"{wording.listed(wording.STRATEGY.get(s, s) for s in study['strategies'])}, seed {study['seed']}"
        )

    def _session_started(self, data: dict[str, Any]) -> str:
        self._sessions += 1
        facts = data["environment"]
        shown = [f"torch {facts['torch']}"] if facts.get("torch") else []
        shown += [facts["device"]] if facts.get("device") else []
        shown += [wording.count(facts[unit + "s"], unit) for unit in ("thread", "worker") if unit + "s" in facts]
        shown += [f"commit {facts['commit']}"] if facts.get("commit") else []
        return f"session {self._sessions} {'resumed' if data.get('resumed') else 'started'}: {', '.join(shown)}"

    def _session_ended(self, data: dict[str, Any]) -> Line:
        text = f"session {self._sessions} {data['state']} after {wording.duration(data['seconds'])}"
        return Line("", text, problem=data["state"] != "finished")

    def _trial_started(self, data: dict[str, Any]) -> None:
        """No line of its own: the one that says how it ended is enough."""
        self._in_flight[_attempt(data)] = self._last, f"{_name(data)} {self._words(data['config'])}"

    def _epoch(self, data: dict[str, Any]) -> Line:
        score = self._score(data["validation"].get(self._objective))
        text = f"{_name(data)} epoch {data['epoch']}: {score}, training loss {data['train_loss']:.3f}"
        return Line("", f"{text}, {wording.duration(data['seconds'])}", epoch=True)

    def _trial_finished(self, data: dict[str, Any]) -> Line:
        self._in_flight.pop(_attempt(data), None)
        state = wording.STATE.get(data["state"], data["state"])
        score = "" if data["score"] is None else f", {self._score(data['score'])}"
        warned = f", {wording.count(len(data['warnings']), 'warning')}" if data.get("warnings") else ""
        reason = f" ({data['reason']})" if data["reason"] else ""
        text = f"{_name(data)} {self._words(data['config'])}: {state}{reason}{score}"
        text += f" in {wording.duration(data['seconds_alone'])}{warned}"
        return Line("", text, problem=data["state"] in _WENT_WRONG)

    def _trial_interrupted(self, data: dict[str, Any]) -> Line:
        self._in_flight.pop(_attempt(data), None)
        again = "; it is tried again" if data.get("requeued") else ""
        return Line("", f"{_name(data)} interrupted: {data['reason']}{again}", problem=True)

    def _duplicate(self, data: dict[str, Any]) -> str:
        return (
            f"{data['strategy']}/{data['slot']} drew what {data['of'] or 'another trial'} has "
            f"({self._words(data['config'])}); drawn again"
        )

    def _strategy_exhausted(self, data: dict[str, Any]) -> str:
        return f"{wording.STRATEGY.get(data['strategy'])} is exhausted after {wording.count(data['slots'], 'slot')}"

    def _search_finished(self, data: dict[str, Any]) -> str:
        return f"search finished ({data['reason']})"

    def _confirmation_selected(self, data: dict[str, Any]) -> str:
        chosen = [
            f"{wording.STRATEGY.get(strategy, strategy)} {entry['role']}: {self._words(entry['config'])}"
            for strategy, entries in data["configs"].items()
            for entry in entries
        ]
        return f"confirmation {data['look']} over {wording.count(data['seeds'], 'seed')}: {'; '.join(chosen)}"

    def _test_scored(self, data: dict[str, Any]) -> str:
        return (
            f"test split, look {data['look']}: {wording.STRATEGY.get(data['strategy'])} ({data['role']}), "
            f"seed {data['seed_index']}: {self._score(data['metrics'].get(self._objective))}"
        )

    def _verdict(self, data: dict[str, Any]) -> str:
        said = describe(data, self._objective)
        return f"verdict {data['look']}: {said}" if data["verdict"] else f"no verdict: {said}"

    def _explored(self, data: dict[str, Any]) -> str:
        what = f"shift {data['shift']}" if data.get("shift") else f"{data['fraction']:g} of the training images"
        return (
            f"explored, {what}: {wording.STRATEGY.get(data['strategy'])}, seed {data['seed_index']}: "
            f"{self._score(data['metrics'].get(self._objective))}"
        )

    def _controlled_selected(self, data: dict[str, Any]) -> str:
        changes = sum(len(entries) for entries in data["configs"].values())
        return f"one choice at a time: {wording.count(changes, 'change')} over {wording.count(data['seeds'], 'seed')}"

    def _model_logged(self, data: dict[str, Any]) -> str:
        return f"model of {data['trial_id']} logged to MLflow as {data['uri']}"

    def _metric(self) -> str:
        return METRICS[self._objective].label if self._objective in METRICS else self._objective

    def _score(self, value: float | None) -> str:
        shown = wording.level(value, self._objective) if self._objective in METRICS else str(value)
        return f"{self._metric()} {shown}"

    def _words(self, config: dict[str, Any]) -> str:
        """`resnet18, depth 3, fixed_stats, head rate 1e-3`: what it is known by, then what the study varies."""
        quiet = idle(config) | ({"unfreeze_depth", "backbone_lr"} if config["unfreeze_depth"] == 0 else set())
        names = [*_FIRST, *(name for name in self._varied if name not in _FIRST)]
        shown = [name for name in names if name not in quiet and config.get(name) is not None][:_MOST]
        return ", ".join(
            config_text(name, config[name])
            if name in KNOBS and KNOBS[name].kind == "choice"
            else f"{_SHORT.get(name, name.replace('_', ' '))} {config_text(name, config[name])}"
            for name in shown
        )


def _attempt(data: dict[str, Any]) -> tuple[str, int]:
    return data["trial_id"], data.get("attempt", 1)


def _name(data: dict[str, Any]) -> str:
    attempt = data.get("attempt", 1)
    return f"{data['trial_id']} (attempt {attempt})" if attempt > 1 else str(data["trial_id"])


def _varied(events: Sequence[Event]) -> list[str]:
    """Knobs in which the study's configurations differ."""
    values: dict[str, set[str]] = {}
    for event in events:
        if event.kind in ("trial_started", "trial_finished"):
            for name, value in event.data.get("config", {}).items():
                values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1 and name in KNOBS]


def _unreadable(at: str, gap: Damage) -> Line:
    size = gap.end - gap.start
    if gap.torn:
        text = f"line {gap.line}, the last one, is torn ({size} bytes): it is being written, or a crash cut it off"
    elif size:
        text = f"from line {gap.line} on {size} bytes cannot be read, and what they told is missing here"
    else:
        text = f"lines are missing before line {gap.line}, and what they told with them"
    return Line(at, text, problem=True)
