"""The event log as a person reads it: one line for whatever happened, in order. `harness log` prints it.

No path, page or database is needed beside the log, and no line can write control characters to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from harness.analysis import wording
from harness.analysis.verdict_text import describe
from harness.analysis.wording import config_text
from harness.config.parameters import PARAMETERS, idle, short_label
from harness.config.trial import TrialConfig
from harness.results.event_types import (
    ConfirmationSelected,
    ControlledSelected,
    Duplicate,
    EpochDone,
    Explored,
    ModelLogged,
    SearchFinished,
    SessionEnded,
    SessionStarted,
    StrategyExhausted,
    StudyCreated,
    StudyEvent,
    TestScored,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
)
from harness.results.events import Damage, Event, Reading, of_type
from harness.results.metrics import METRICS
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState
from harness.results.trial_id import TrialId, run_key
from harness.safe_text import escape_name

_FIRST = ("backbone", "unfreeze_depth", "batchnorm", "head_lr", "backbone_lr")  # what a configuration is known by
_MOST = 7  # parameters in a line
_WENT_WRONG = ("diverged", "out_of_memory", "failed")


@dataclass(frozen=True)
class Line:
    """Something that happened."""

    at: str  # UTC, ISO 8601
    text: str
    problem: bool = False
    epoch: bool = False


def format_events(reading: Reading, objective: str, running: int | None = None) -> list[Line]:
    """Every event as a line, with the end of sessions that have none, and the places that cannot be read.

    Args:
        objective: what the scores are; of the log's own study where it is readable.
        running: process that works on the study now; None: nobody does.
    """
    teller = LogFormatter(objective, reading.events)
    gaps = {damage.after: damage for damage in reading.damages}
    at = reading.events[0].at if reading.events else ""
    lines = [_unreadable(at, gaps.pop(0))] if 0 in gaps else []
    for event in reading.events:
        lines += teller.tell(event)
        at = event.at
        if event.seq in gaps:
            lines.append(_unreadable(at, gaps.pop(event.seq)))
    return lines + teller.standing(at, running)


def format_lines(lines: Sequence[Line], zone: tzinfo | None, name: str) -> Iterator[str]:
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
        yield escape_name(f"{moment:%H:%M:%S}  {line.text}" if moment else f"--:--:--  {line.text}")


class LogFormatter:
    """Puts events into words; follows the study, to know which session it is in and which trials have begun."""

    def __init__(self, objective: str, events: Sequence[Event]) -> None:
        self._state = StudyState()
        self._given = objective
        self._varied = _varied(events)
        ended = [finished.record for finished in of_type(events, TrialFinished)]
        self._records = {record.job.key: record for record in ended}

    def tell(self, event: Event) -> list[Line]:
        """The lines of one event; none if a later one says it all."""
        lines: list[Line] = []
        if isinstance(event.data, SessionStarted) and self._state.is_running:
            lines.append(self._killed(self._state.last_at or ""))
        self._state.apply(event)
        made = self._line(event.data)
        if isinstance(made, str):
            made = Line("", made)
        return lines if made is None else [*lines, Line(event.at, made.text, made.problem, made.epoch)]

    def standing(self, at: str, running: int | None) -> list[Line]:
        """How things stand behind the last event."""
        open_trials = self._state.in_flight.values()
        begun = [(t.at, f"{_name(t.job.trial_id, t.job.attempt)} {self._words(t.job.config)}") for t in open_trials]
        if running is not None:
            training = [Line(began, f"{text}: training since then") for began, text in begun]
            return [*training, Line(at, f"the study runs now (process {running})")]
        if not self._state.is_running:
            return []
        cut = [Line(began, f"{text}: begun then, and cut off", problem=True) for began, text in begun]
        return [*cut, self._killed(at)]

    def _killed(self, at: str) -> Line:
        return Line(at, f"session {self._state.sessions_started} has no end: it was killed", problem=True)

    def _line(self, event: StudyEvent) -> Line | str | None:
        session = self._state.sessions_started
        match event:
            case StudyCreated(study):
                return (
                    f"study created: {self._metric()}, {study['trials']} trials of {study['epochs']} epochs for each "
                    f"of {wording.listed(wording.STRATEGY.get(s, s) for s in study['strategies'])}, "
                    f"seed {study['seed']}"
                )
            case SessionStarted(facts, resumed):
                return f"session {session} {'resumed' if resumed else 'started'}: {_environment(facts)}"
            case SessionEnded(state, seconds):
                text = f"session {session} {state} after {wording.duration(seconds)}"
                return Line("", text, problem=state != "finished")
            case TrialStarted():
                return None  # the line that says how it ended is enough
            case EpochDone() as done:
                return Line("", self._epoch(done), epoch=True)
            case TrialFinished(record):
                return Line("", self._finished(record), problem=record.state in _WENT_WRONG)
            case TrialInterrupted() as cut:
                name = _name(cut.trial_id, cut.attempt)
                return Line("", f"{name} interrupted: {cut.reason}; it is tried again", problem=True)
            case Duplicate() as draw:
                slot = TrialId("search", draw.strategy, draw.slot)
                return f"{slot} drew what {draw.of} has ({self._words(draw.config)}); drawn again"
            case StrategyExhausted(strategy, slots):
                return f"{wording.STRATEGY.get(strategy)} is exhausted after {wording.count(slots, 'slot')}"
            case SearchFinished(reason):
                return f"search finished ({reason})"
            case ConfirmationSelected() as selection:
                chosen = [
                    f"{wording.STRATEGY.get(strategy, strategy)} {entry.role}: {self._words(entry.config)}"
                    for strategy, entries in selection.configs.items()
                    for entry in entries
                ]
                seeds = wording.count(selection.seeds, "seed")
                return f"confirmation {selection.look} over {seeds}: {'; '.join(chosen)}"
            case TestScored() as scored:
                return (
                    f"test split, look {scored.look}: {wording.STRATEGY.get(scored.strategy)} ({scored.role}), "
                    f"seed {scored.seed_index}: {self._score(scored.metrics.get(self._objective))}"
                )
            case VerdictReached() as reached:
                said = describe(reached, self._objective)
                return f"verdict {reached.look}: {said}" if reached.verdict else f"no verdict: {said}"
            case Explored() as one:
                what = f"shift {one.shift}" if one.what == "shift" else f"{one.fraction:g} of the training images"
                return (
                    f"explored, {what}: {wording.STRATEGY.get(one.strategy)}, seed {one.seed_index}: "
                    f"{self._score(one.metrics.get(self._objective))}"
                )
            case ControlledSelected(seeds, configs):
                changes = wording.count(sum(len(entries) for entries in configs.values()), "change")
                return f"one choice at a time: {changes} over {wording.count(seeds, 'seed')}"
            case ModelLogged(uri, trial_id):
                return f"model of {trial_id} logged to MLflow as {uri}"

    def _epoch(self, done: EpochDone) -> str:
        """With the numbers of the trial's record, once there is one."""
        text = f"{_name(done.trial_id, done.attempt)} epoch {done.epoch}: {self._score(done.score)}"
        record = self._records.get(run_key(done.trial_id, done.attempt))
        epoch = next((one for one in record.epochs if one.epoch == done.epoch), None) if record else None
        if epoch is None:
            return text
        return f"{text}, training loss {epoch.train_loss:.3f}, {wording.duration(epoch.seconds)}"

    def _finished(self, record: TrialRecord) -> str:
        state = wording.STATE.get(record.state, record.state)
        score = "" if record.score is None else f", {self._score(record.score)}"
        warned = f", {wording.count(len(record.warnings), 'warning')}" if record.warnings else ""
        reason = f" ({record.reason})" if record.reason else ""
        text = f"{_name(record.trial_id, record.attempt)} {self._words(record.config)}: {state}{reason}{score}"
        return f"{text} in {wording.duration(record.seconds_alone)}{warned}"

    @property
    def _objective(self) -> str:
        return self._state.objective or self._given

    def _metric(self) -> str:
        return METRICS[self._objective].label if self._objective in METRICS else self._objective

    def _score(self, value: float | None) -> str:
        shown = wording.level(value, self._objective) if self._objective in METRICS else str(value)
        return f"{self._metric()} {shown}"

    def _words(self, chosen: TrialConfig) -> str:
        """`resnet18, depth 3, fixed_stats, head rate 1e-3`: what it is known by, then what the study varies."""
        config = chosen.to_json()
        quiet = idle(config) | ({"unfreeze_depth", "backbone_lr"} if chosen.unfreeze_depth == 0 else set())
        names = [*_FIRST, *(name for name in self._varied if name not in _FIRST)]
        shown = [name for name in names if name not in quiet and config.get(name) is not None][:_MOST]
        return ", ".join(
            config_text(name, config[name])
            if name in PARAMETERS and PARAMETERS[name].kind == "choice"
            else f"{short_label(name)} {config_text(name, config[name])}"
            for name in shown
        )


def _environment(facts: dict[str, Any]) -> str:
    shown = [f"torch {facts['torch']}"] if facts.get("torch") else []
    shown += [facts["device"]] if facts.get("device") else []
    shown += [wording.count(facts[unit + "s"], unit) for unit in ("thread", "worker") if unit + "s" in facts]
    shown += [f"commit {facts['commit']}"] if facts.get("commit") else []
    return ", ".join(shown)


def _name(trial_id: str, attempt: int) -> str:
    return f"{trial_id} (attempt {attempt})" if attempt > 1 else trial_id


def _varied(events: Sequence[Event]) -> list[str]:
    """Parameters in which the study's configurations differ."""
    values: dict[str, set[str]] = {}
    configs = [began.job.config for began in of_type(events, TrialStarted)]
    for config in configs + [finished.record.config for finished in of_type(events, TrialFinished)]:
        for name, value in vars(config).items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1 and name in PARAMETERS]


def _unreadable(at: str, gap: Damage) -> Line:
    size = gap.end - gap.start
    if gap.torn:
        text = f"line {gap.line}, the last one, is torn ({size} bytes): it is being written, or a crash cut it off"
    elif size:
        text = f"from line {gap.line} on {size} bytes cannot be read, and what they told is missing here"
    else:
        text = f"lines are missing before line {gap.line}, and what they told with them"
    return Line(at, text, problem=True)
