"""Does MLflow hold what the event log says, each thing once? Compared run by run; only `set_aside` changes anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.secrets import masked
from harness.results.event_types import ModelLogged, TestScored, TrialFinished, TrialInterrupted, TrialStarted
from harness.results.events import Event, of_type
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState
from harness.tracking import projection as shown
from harness.tracking.mlflow_models import holds_model
from harness.tracking.mlflow_store import failures, metric_points, open_client, reason
from harness.tracking.store import TrackingUnavailable, answers, is_remote

_ASIDE = " (set aside)"  # ends the key of a run that is no trial of the log any more
_NOTES = ("mlflow.note.content", "sessions")  # of the parent: they follow what may change
_CLOSE = 1e-9  # of a value, relative: a server may keep fewer digits


@dataclass(frozen=True)
class Fault:
    """One thing in which MLflow and the log differ."""

    what: str
    runs: tuple[str, ...] = ()  # ids of runs to be set aside, since a replay cannot mend them
    deleted: str = ""  # id of the experiment, where that was deleted


def audit(study: str, address: str, events: Sequence[Event], *, running: bool = False) -> list[Fault]:
    """Every difference between a study's runs and its log; [] where they agree.

    Args:
        running: the study is at work, so what is missing may be on its way.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    try:
        if is_remote(address) and not answers(address):
            raise ConnectionError("nothing listens there")
        return _Audit(study, address, open_client(address), events, running).faults()
    except failures() as error:
        raise TrackingUnavailable(f"MLflow at {masked(address)} does not answer ({reason(error)})") from None


def missing_models(address: str, events: Iterable[Event]) -> list[str]:
    """Addresses of models that the log says were logged last for their trial, and that are not there.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    uris = {logged.trial_id: logged.uri for logged in of_type(events, ModelLogged)}
    try:
        client = open_client(address)
        return [uri for uri in uris.values() if not holds_model(client, uri)]
    except failures() as error:
        raise TrackingUnavailable(f"MLflow at {masked(address)} does not answer ({reason(error)})") from None


def set_aside(address: str, runs: Iterable[str]) -> None:
    """Take runs out of the study: they keep all they hold, lose their key, and move to MLflow's deleted runs."""
    client = open_client(address)
    for run_id in runs:
        tags = client.get_run(run_id).data.tags
        for name in ("harness.key", "harness.study_id"):
            if name in tags:
                client.set_tag(run_id, name, tags[name] + _ASIDE)
        client.delete_run(run_id)


class _Audit:
    def __init__(self, study: str, address: str, client: Any, events: Sequence[Event], running: bool) -> None:
        self._study, self._address, self._client, self._events = study, address, client, events
        self._running = running

    def faults(self) -> list[Fault]:
        experiment = self._client.get_experiment_by_name(self._study)
        unknown = [] if self._running else [Fault("it does not know the study")]
        if experiment is None:
            return unknown
        if experiment.lifecycle_stage == "deleted":
            return [Fault("the study's experiment was deleted", deleted=str(experiment.experiment_id))]
        identity = shown.study_id(self._study, self._events[0])
        runs = self._runs(experiment.experiment_id)
        parents = [run for run in runs if run.data.tags.get("harness.study_id") == identity]
        if not parents:
            return unknown
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
        family = tuple(run.info.run_id for run in (parents[0], *children))
        return [*self._parent(parents[0], family), *self._trials(children)]

    def _runs(self, experiment_id: str) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while token != "":
            page = self._client.search_runs([experiment_id], max_results=1000, page_token=token)
            found += page
            token = page.token or ""
        return found

    def _parent(self, run: Any, family: tuple[str, ...]) -> list[Fault]:
        """The study's own run has every value and tag that the log gives it; set aside, it takes all others along."""
        state, tags, status = StudyState(), dict[str, str](), "RUNNING"
        points: list[shown.Point] = []
        for event in self._events:
            state.apply(event)
            update = shown.study_update(event, state, "", None)
            if update is not None:
                tags |= update.tags
                points += update.metrics
                status = update.status or status
        wrong = [name for name, value in tags.items() if name not in _NOTES and run.data.tags.get(name) != value]
        found = self._points("the study's own run", run, points)
        faults = [Fault(fault.what, family if fault.runs else ()) for fault in found]
        if self._running:
            return faults
        if run.info.status != status or wrong:
            faults.append(Fault(f"the study's own run does not show how the study stands ({status.lower()})"))
        return faults

    def _trials(self, runs: Sequence[Any]) -> list[Fault]:
        by_key: dict[str, list[Any]] = defaultdict(list)
        for run in runs:
            by_key[run.data.tags.get("harness.key", "")].append(run)
        ended = {
            event.data.record.job.key: (event.at, event.data.record)
            for event in self._events
            if isinstance(event.data, TrialFinished)
        }
        begun = {began.job.key for began in of_type(self._events, TrialStarted)}
        died = {cut.key for cut in of_type(self._events, TrialInterrupted)} - set(ended)
        faults: list[Fault] = []
        for key, same in by_key.items():
            ids = tuple(run.info.run_id for run in same)
            if key.endswith(_ASIDE):
                continue
            if key not in begun | set(ended):
                faults.append(Fault(f"it holds {key or 'a run without a name'}, which the log does not", ids))
            elif len(same) > 1:
                faults.append(Fault(f"{key} is there {len(same)} times", ids))
            elif key not in ended and same[0].info.status == "RUNNING" and not self._running:
                faults.append(Fault(f"{key} is shown as running, and nobody runs it"))
        if not self._running:
            missing = [key for key in (*ended, *died) if key not in by_key]
            faults += [Fault(f"{key} is missing") for key in missing]
        tests = self._test_points()
        for key, (at, record) in ended.items():
            if len(by_key.get(key, ())) == 1:
                faults += self._trial(record, at, by_key[key][0], tests.get(record.trial_id, []))
        return faults

    def _trial(self, record: TrialRecord, at: str, run: Any, tests: Sequence[shown.Point]) -> list[Fault]:
        key = record.job.key
        if self._running and "harness.logged" not in run.data.tags:
            return []
        faults = self._points(key, run, [*shown.trial_metrics(record, at), *tests])
        if run.info.status != shown.RUN_STATUS[record.state]:
            faults.append(Fault(f"{key} is shown as {run.info.status.lower()}, and ended {record.state}"))
        wanted = {**shown.outcome_tags(record), "harness.logged": run.data.tags.get("harness.logged", "missing")}
        if wanted["harness.logged"] == "missing" or not wanted.items() <= run.data.tags.items():
            faults.append(Fault(f"{key} does not say how it ended"))
        if not shown.trial_params(record).items() <= run.data.params.items():
            faults.append(Fault(f"{key} has other parameters than its trial", (run.info.run_id,)))
        return faults

    def _points(self, key: str, run: Any, wanted: Sequence[shown.Point]) -> list[Fault]:
        """Each point once, with its value; one that is wrong or there twice cannot be mended in place."""
        names = {point.name for point in wanted}
        held = metric_points(self._address, self._client, run.info.run_id, names)
        counts = Counter((name, step) for name, step, _ in held if name in names)
        values = {(name, step): value for name, step, value in held}
        twice = [place for place, count in counts.items() if count > 1]
        if twice:
            return [Fault(f"{key} has {_place(twice[0])} twice", (run.info.run_id,))]
        by_place = {(point.name, point.step): point.value for point in wanted}
        wrong = [place for place, value in by_place.items() if place in values and not _same(values[place], value)]
        if wrong:
            return [Fault(f"{key} has another {_place(wrong[0])} than its trial", (run.info.run_id,))]
        missing = [place for place in by_place if place not in values]
        if missing and not self._running:
            return [Fault(f"{key} lacks {len(missing)} of {len(by_place)} metric values, {_place(missing[0])} first")]
        return []

    def _test_points(self) -> Mapping[str, list[shown.Point]]:
        """What the test split said of each confirmed trial, by trial."""
        found: dict[str, list[shown.Point]] = defaultdict(list)
        for event in self._events:
            if isinstance(event.data, TestScored):
                found[event.data.trial_id] += shown.test_points(event.data, shown.milliseconds(event.at))
        return found


def _place(place: tuple[str, int]) -> str:
    name, step = place
    return f"{name} of step {step}" if step else name


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _CLOSE * max(abs(one), abs(other), 1.0)
