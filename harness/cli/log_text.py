"""Format the event log for people: one line for each event, in order. `harness log` prints it.

Only the log is needed, no other file or database. Control characters are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from harness.analysis import wording
from harness.analysis.verdict_text import describe
from harness.analysis.wording import config_text
from harness.config.initial_weights import DEFAULT
from harness.config.parameters import PARAMETERS, idle, short_label
from harness.config.trial import TrialConfig
from harness.results.event_types import (
    ConfirmationSelected,
    ControlledSelected,
    Duplicate,
    EpochDone,
    Explored,
    ModelLogged,
    ReferenceScored,
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

_FIRST = ("backbone", "unfreeze_depth", "batchnorm", "head_lr", "backbone_lr")  # always named for a configuration
_MOST = 7  # parameters in one line
_WENT_WRONG = ("diverged", "out_of_memory", "failed")


@dataclass(frozen=True)
class Line:
    """A line of the log's text."""

    at: str  # UTC, ISO 8601; "" if the time is not known
    text: str
    problem: bool = False  # whether something went wrong
    epoch: bool = False  # whether it is about an epoch


def format_events(reading: Reading, objective: str, running: int | None = None) -> list[Line]:
    """Return the lines of all events, of sessions without an end, and of places that cannot be read.

    Args:
        objective: name of the score, used if the log does not name it.
        running: id of the process that runs the study now; None if none does.
    """
    formatter = LogFormatter(objective, reading.events)
    gaps = {damage.after: damage for damage in reading.damages}
    at = reading.events[0].at if reading.events else ""
    lines = [_unreadable(at, gaps.pop(0))] if 0 in gaps else []
    for event in reading.events:
        lines += formatter.lines_of(event)
        at = event.at
        if event.seq in gaps:
            lines.append(_unreadable(at, gaps.pop(event.seq)))
    return lines + formatter.last_lines(at, running)


def format_lines(lines: Sequence[Line], zone: tzinfo | None, name: str) -> Iterator[str]:
    """Yield the lines with their times, and a line for each new day; control characters are escaped.

    Args:
        zone: time zone; None is the machine's own.
        name: name of the zone; "" takes the zone's name on each day.
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
    """Converts events to lines. It replays the study to number sessions and to find trials that are running."""

    def __init__(self, objective: str, events: Sequence[Event]) -> None:
        self._state = StudyState()
        self._default_objective = objective
        self._varied = _varied(events)
        ended = [finished.record for finished in of_type(events, TrialFinished)]
        self._records = {record.job.key: record for record in ended}

    def lines_of(self, event: Event) -> list[Line]:
        """Return the lines of the next event; none if a later event says the same."""
        lines: list[Line] = []
        if isinstance(event.data, SessionStarted) and self._state.is_running:
            lines.append(self._killed(self._state.last_at or ""))
        self._state.apply(event)
        line = self._line(event.data)
        if isinstance(line, str):
            line = Line("", line)
        return lines if line is None else [*lines, Line(event.at, line.text, line.problem, line.epoch)]

    def last_lines(self, at: str, running: int | None) -> list[Line]:
        """Return the lines after the last event: trials that run or were cut off, and whether the study runs."""
        open_trials = self._state.in_flight.values()
        started = [
            (t.at, f"{_name(t.job.trial_id, t.job.attempt)} {self._describe(t.job.config)}") for t in open_trials
        ]
        if running is not None:
            training = [Line(start, f"{text}: training since then") for start, text in started]
            return [*training, Line(at, f"the study is running (process {running})")]
        if not self._state.is_running:
            return []
        cut_off = [Line(start, f"{text}: started then, and was cut off", problem=True) for start, text in started]
        return [*cut_off, self._killed(at)]

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
            case SessionStarted(environment, resumed, weights):
                how = f"session {session} {'resumed' if resumed else 'started'}: {_environment(environment)}"
                return "; ".join((how, *weights))
            case SessionEnded(state, seconds):
                text = f"session {session} {state} after {wording.duration(seconds)}"
                return Line("", text, problem=state != "finished")
            case TrialStarted():
                return None  # the line about its end is enough
            case EpochDone() as epoch:
                return Line("", self._epoch(epoch), epoch=True)
            case TrialFinished(record):
                return Line("", self._finished(record), problem=record.state in _WENT_WRONG)
            case TrialInterrupted() as interrupted:
                name = _name(interrupted.trial_id, interrupted.attempt)
                return Line("", f"{name} interrupted: {interrupted.reason}; it runs again", problem=True)
            case Duplicate() as duplicate:
                slot = TrialId("search", duplicate.strategy, duplicate.slot)
                config = self._describe(duplicate.config)
                return f"{slot} drew the configuration of {duplicate.of} ({config}); it is drawn again"
            case StrategyExhausted(strategy, slots):
                return f"{wording.STRATEGY.get(strategy)} is exhausted after {wording.count(slots, 'slot')}"
            case SearchFinished(reason):
                return f"search finished ({reason})"
            case ConfirmationSelected() as selection:
                chosen = [
                    f"{wording.STRATEGY.get(strategy, strategy)} {entry.role}: {self._describe(entry.config)}"
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
            case ReferenceScored() as reference:
                voting = wording.count(reference.neighbours, "nearest neighbour")
                on = reference.backbone + ("" if reference.weights == DEFAULT else f" ({reference.weights})")
                return (
                    f"reference, {voting} on frozen features of {on}, seed {reference.seed_index}: "
                    f"{self._score(reference.metrics.get(self._objective))}"
                )
            case VerdictReached() as reached:
                answer = describe(reached, self._objective)
                return f"verdict {reached.look}: {answer}" if reached.verdict else f"no verdict: {answer}"
            case Explored() as explored:
                shifted = explored.what == "shift"
                what = f"shift {explored.shift}" if shifted else f"{explored.fraction:g} of the training images"
                return (
                    f"explored, {what}: {wording.STRATEGY.get(explored.strategy)}, seed {explored.seed_index}: "
                    f"{self._score(explored.metrics.get(self._objective))}"
                )
            case ControlledSelected(seeds, configs):
                changes = wording.count(sum(len(entries) for entries in configs.values()), "change")
                return f"one choice at a time: {changes} over {wording.count(seeds, 'seed')}"
            case ModelLogged(uri, trial_id):
                return f"model of {trial_id} logged to MLflow as {uri}"

    def _epoch(self, done: EpochDone) -> str:
        """Describe an epoch, with the numbers of the trial's record if the trial has finished."""
        text = f"{_name(done.trial_id, done.attempt)} epoch {done.epoch}: {self._score(done.score)}"
        record = self._records.get(run_key(done.trial_id, done.attempt))
        epoch = next((epoch for epoch in record.epochs if epoch.epoch == done.epoch), None) if record else None
        if epoch is None:
            return text
        return f"{text}, training loss {epoch.train_loss:.3f}, {wording.duration(epoch.seconds)}"

    def _finished(self, record: TrialRecord) -> str:
        state = wording.STATE.get(record.state, record.state)
        score = "" if record.score is None else f", {self._score(record.score)}"
        warned = f", {wording.count(len(record.warnings), 'warning')}" if record.warnings else ""
        reason = f" ({record.reason})" if record.reason else ""
        text = f"{_name(record.trial_id, record.attempt)} {self._describe(record.config)}: {state}{reason}{score}"
        return f"{text} in {wording.duration(record.seconds_alone)}{warned}"

    @property
    def _objective(self) -> str:
        return self._state.objective or self._default_objective

    def _metric(self) -> str:
        return METRICS[self._objective].label if self._objective in METRICS else self._objective

    def _score(self, value: float | None) -> str:
        shown = wording.level(value, self._objective) if self._objective in METRICS else str(value)
        return f"{self._metric()} {shown}"

    def _describe(self, trial_config: TrialConfig) -> str:
        """Describe a configuration, `resnet18, depth 3, fixed_stats, head rate 1e-3`, with what the study varies."""
        config = trial_config.to_json()
        without_effect = idle(config) | (
            {"unfreeze_depth", "backbone_lr"} if trial_config.unfreeze_depth == 0 else set()
        )
        names = [*_FIRST, *(name for name in self._varied if name not in _FIRST)]
        shown = [name for name in names if name not in without_effect and config.get(name) is not None][:_MOST]
        return ", ".join(
            config_text(name, config[name])
            if name in PARAMETERS and PARAMETERS[name].kind == "choice"
            else f"{short_label(name)} {config_text(name, config[name])}"
            for name in shown
        )


def _environment(values: dict[str, Any]) -> str:
    shown = [f"torch {values['torch']}"] if values.get("torch") else []
    shown += [values["device"]] if values.get("device") else []
    kept = f" (kept; here they would be {values['threads_here']})" if "threads_here" in values else ""
    shown += [wording.count(values["threads"], "thread") + kept] if "threads" in values else []
    shown += [wording.count(values["workers"], "worker")] if "workers" in values else []
    shown += [f"commit {values['commit']}"] if values.get("commit") else []
    return ", ".join(shown)


def _name(trial_id: str, attempt: int) -> str:
    return f"{trial_id} (attempt {attempt})" if attempt > 1 else trial_id


def _varied(events: Sequence[Event]) -> list[str]:
    """Return the parameters in which the study's configurations differ."""
    values: dict[str, set[str]] = {}
    configs = [started.job.config for started in of_type(events, TrialStarted)]
    for config in configs + [finished.record.config for finished in of_type(events, TrialFinished)]:
        for name, value in vars(config).items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1 and name in PARAMETERS]


def _unreadable(at: str, gap: Damage) -> Line:
    size = gap.end - gap.start
    if gap.torn:
        text = f"line {gap.line}, the last one, is torn ({size} bytes): it is being written, or a crash cut it off"
    elif size:
        text = f"from line {gap.line} on {size} bytes cannot be read, so their events are missing here"
    else:
        text = f"lines are missing before line {gap.line}, so their events are missing here"
    return Line(at, text, problem=True)
