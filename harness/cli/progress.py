"""Show the progress of a running study: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.cli.terminal import Terminal
from harness.results.metrics import METRICS
from harness.results.records import EpochRecord, TrialJob, TrialRecord

PLAIN_SECONDS = 2.0  # without a terminal: least time between two lines about the same preparation
QUIET_SECONDS = 30.0  # without a terminal: a phase with progress prints a line after so long a pause


class Watcher:
    """A context manager that shows a study's progress; see `study.session.Observer`. rich respects NO_COLOR.

    Args:
        objective: the metric that is shown as the score.
    """

    def __init__(self, console: Terminal, objective: str) -> None:
        self._console, self._objective = console, objective
        self._best: dict[str, float] = {}
        self._plain = not console.is_terminal
        self._printed: dict[str, float] = {}  # time of the last line about each preparation
        self._last_line = 0.0  # time of the last line
        self._done = 0  # how many trials of the phase were done at the last line
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=self._plain,
        )
        self._study: TaskID | None = None
        self._trials: dict[str, TaskID] = {}
        self._phase = ""

    def __enter__(self) -> Watcher:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def message(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False)

    def working(self, what: str, done: int, of: int) -> None:
        if self._plain:
            now = time.monotonic()
            if now - self._printed.get(what, 0.0) > PLAIN_SECONDS or done == of:
                self._printed[what] = now
                self.message(f"{what}: {done} of {of}")
            return
        self._show(what, done, of)

    def phase(self, name: str, done: int, total: int) -> None:
        if self._plain:
            quiet = time.monotonic() - self._last_line
            if name != self._phase or (done > self._done and quiet >= QUIET_SECONDS):
                self.message(f"{name}: {done} of {total} done")
                self._phase, self._done = name, done
            return
        self._show(name, done, total)

    def trial_started(self, job: TrialJob) -> None:
        if not self._plain:
            name = f"  {_title(job.kind, job.strategy, job.slot)} · {job.config.backbone}"
            self._trials[job.trial_id] = self._bars.add_task(name, total=job.config.epochs, note="")

    def epoch(self, job: TrialJob, record: EpochRecord) -> None:
        if job.trial_id in self._trials:
            score = record.validation[self._objective]
            self._bars.update(self._trials[job.trial_id], completed=record.epoch, note=f"{score:.3f}")

    def trial_finished(self, record: TrialRecord) -> None:
        if record.trial_id in self._trials:
            self._bars.remove_task(self._trials.pop(record.trial_id))
        if record.kind == "search" and record.state == "complete" and record.score is not None:
            sign = METRICS[self._objective].sign
            best = self._best.get(record.strategy)
            if best is None or sign * record.score > sign * best:
                self._best[record.strategy] = record.score
        if self._plain:
            self._done += 1
            self.message(self._line(record))
        elif self._study is not None:
            self._bars.update(self._study, note=self._notes())

    def _show(self, name: str, done: int, total: int) -> None:
        if name != self._phase or self._study is None:
            if self._study is not None:
                self._bars.remove_task(self._study)
            self._study = self._bars.add_task(name, total=total, note=self._notes())
            self._phase = name
        self._bars.update(self._study, completed=done, total=total)

    def _notes(self) -> str:
        return " · ".join(f"{strategy} {score:.3f}" for strategy, score in self._best.items())

    def _line(self, record: TrialRecord) -> str:
        score = "" if record.score is None else f" {METRICS[self._objective].label} {record.score:.3f}"
        depth = f" depth {record.config.unfreeze_depth}" if record.strategy == "fine_tuning" else ""
        reason = "" if record.reason is None else f" ({record.reason})"
        best = f", best so far {self._best[record.strategy]:.3f}" if record.strategy in self._best else ""
        return (
            f"{_title(record.kind, record.strategy, record.slot)} · {record.config.backbone}{depth}: "
            f"{record.state}{reason}{score} in {record.seconds_alone:.1f} s{best}"
        )


def _title(kind: str, strategy: str, slot: int) -> str:
    return f"{strategy} {slot}" if kind == "search" else f"{kind.replace('_', ' ')} of {strategy}, seed {slot}"
