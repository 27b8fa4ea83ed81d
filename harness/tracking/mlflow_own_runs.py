"""Find a study's experiment and runs in MLflow, or create them, so that each run stands there once.

A study is one experiment of the study's name, with one parent run and one child run for each trial. Each study has an
experiment of its own so that the runs table, the charts and the parallel coordinates show only runs with the same data
set and objective. Runs are the study's by tags with its id and the trial's key, never by their names, which a user may
change. `mlflow_runs` writes to the runs that are found here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.results.event_types import StudyCreated
from harness.results.events import Event
from harness.results.paths import home
from harness.safe_text import masked
from harness.tracking import mapping
from harness.tracking.address import TrackingError, is_remote
from harness.tracking.mlflow_store import all_runs, parent_runs, replace_run
from harness.tracking.replay import Run

if TYPE_CHECKING:
    import mlflow.entities
    from mlflow import MlflowClient


class OwnRuns:
    """The runs of one study.

    Args:
        study: name of the study, of the experiment and of the parent run.
        description: the study's description, shown above the parent run.
        address: of the MLflow server or store.
        client: opens the client of that address at its first call.
    """

    def __init__(self, study: str, description: str, address: str, client: Callable[[], MlflowClient]) -> None:
        self._study, self._description, self._address, self._client = study, description, address, client
        self.experiment = ""  # its id, once `open_study` has found or created it
        self.run_ids: dict[str, str] = {}  # by key; of the trials whose run was created or found here
        self.restored = 0  # runs that had been deleted by hand

    def open_study(self, first: Event) -> tuple[Run, bool]:
        """Find or create the study's experiment and parent run; return that run, and whether it existed.

        The run is found by the study's id, in whatever experiment, so that a renamed experiment is still the study's.
        """
        identity = mapping.study_id(self._study, first)
        found = parent_runs(self._client(), self._study, identity)
        if found:
            parent = self._only(found)
            self.experiment = self._experiment_of(parent.run_id, found)
            return parent, True
        self.experiment = self._study_experiment()
        tags = {"harness.study_id": identity, "kind": "study", "state": "running"}
        tags["mlflow.note.content"] = mapping.note(self._description, None)
        parent = self._create(self._study, tags, first.at, f"tags.`harness.study_id` = '{identity}'")
        view = mapping.view_state(first.data.objective if isinstance(first.data, StudyCreated) else None)
        self._client().set_experiment_tag(self.experiment, mapping.VIEW_TAG, view)
        return parent, False

    @staticmethod
    def _experiment_of(run_id: str, runs: Sequence[mlflow.entities.Run]) -> str:
        return next(str(run.info.experiment_id) for run in runs if run.info.run_id == run_id)

    def _study_experiment(self) -> str:
        """Return the id of the experiment of this study's name; create it if it is missing."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        experiment = client.get_experiment_by_name(self._study)
        if experiment is None:
            # a server has its own folder for artifacts; for a database we have to name one
            location = None if is_remote(self._address) else (home() / "artifacts" / self._study).as_uri()
            note = mapping.shortened(self._description, mapping.EXPERIMENT_TAG_LIMIT)
            # with this kind the UI opens the table of runs; otherwise it would show traces of language models
            tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": note}
            try:
                return str(client.create_experiment(self._study, artifact_location=location, tags=tags))
            except MlflowException as error:
                # made meanwhile by another process, or by this request, whose answer was lost and which was repeated
                experiment = client.get_experiment_by_name(self._study)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {self._study!r} was deleted, but its name is still taken; restore it with "
                f"`MLFLOW_TRACKING_URI={masked(self._address)} mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or start the study under another name (AS=newname)."
            )
        return str(experiment.experiment_id)

    def trial_runs(self, parent: Run) -> dict[str, Run]:
        """Return the child runs by key. Restore those that a user deleted, and remove doubles."""
        same: dict[str, list[mlflow.entities.Run]] = {}
        for run in all_runs(self._client(), [self.experiment], f"tags.`mlflow.parentRunId` = '{parent.run_id}'"):
            if key := run.data.tags.get("harness.key"):
                same.setdefault(key, []).append(run)
        runs = {key: self._only(group, self.run_ids.get(key)) for key, group in same.items()}
        self.run_ids |= {key: run.run_id for key, run in runs.items()}
        return runs

    def _only(self, runs: Sequence[mlflow.entities.Run], used: str | None = None) -> Run:
        """Return the one of these equal runs to go on with, remove the others, and restore it if it was deleted.

        A run stands twice if the answer to its creation was lost and the request was repeated.

        Args:
            used: id of the run that this session uses already, if any.
        """
        best = max(runs, key=lambda run: (run.info.run_id == used, len(run.data.tags), run.info.run_id))
        for double in runs:
            if double is not best:
                replace_run(self._client(), double, f"by {best.info.run_id}")
        if best.info.lifecycle_stage == "deleted":  # by a user; the log still holds the trial
            self._client().restore_run(best.info.run_id)
            self.restored += 1
        return Run(best.info.run_id, best.info.status, dict(best.data.tags))

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        """Create a child run that started at this time."""
        key, child = tags["harness.key"], f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
        run = self._create(
            name, {**tags, "mlflow.parentRunId": parent.run_id}, at, f"{child} and tags.`harness.key` = '{key}'"
        )
        self.run_ids[key] = run.run_id
        return run

    def _create(self, name: str, tags: dict[str, str], at: str, same: str) -> Run:
        """Create a run.

        Args:
            same: the condition by which this run is found. MLflow's client repeats a request to a server if its answer
                is lost, so that there may be two runs afterwards.
        """
        tags = {**tags, "mlflow.source.name": "harness", "mlflow.source.type": "LOCAL"}
        created = self._client().create_run(self.experiment, mapping.milliseconds(at), tags, name)
        if is_remote(self._address):
            found = all_runs(self._client(), [self.experiment], same)
            if len(found) > 1:
                return self._only(found, created.info.run_id)
        return Run(created.info.run_id, tags=tags)
