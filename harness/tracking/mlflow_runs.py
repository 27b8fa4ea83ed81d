"""MLflow as a projection of the event log; the three files mlflow_*.py are the only ones that import mlflow.

A study is one experiment of its name, with one parent run and one child run a trial. An experiment of its own
keeps the runs table, the charts and the parallel coordinates to runs that share a data set and an objective;
the parent run holds what belongs to none of the trials: the question, the data, the verdict, the report.
The order of things, and why nothing arrives twice, is told in `projector`.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.event_types import StudyCreated
from harness.results.events import Event
from harness.results.paths import StudyFolder, home
from harness.safe_text import masked
from harness.tracking import mapping as shown
from harness.tracking.address import TrackingError, TrackingUnavailable, answers, is_remote
from harness.tracking.mlflow_models import export_model, global_tracking, holds_model
from harness.tracking.mlflow_store import failures, open_client, prepare_store, reason
from harness.tracking.replay import Projector, Run

if TYPE_CHECKING:
    import mlflow.entities
    import numpy as np
    import torch
    from mlflow import MlflowClient

METRICS_A_BATCH = 800  # MLflow takes 1,000 metrics, parameters and tags together
PARAMS_A_BATCH = 100
DATASET_NAME_LIMIT = 500  # characters
REST_AFTER_FAILURE = 20.0  # times what the failure took: a server that hangs costs under 5 % of the study


class MlflowBridge:
    """Brings MLflow to the state that a study's event log describes; may be called as often as one likes.

    Args:
        study: the study's name; also the name of the experiment and of the parent run.
        description: the question, shown above the parent run.
        address: from `store.tracking_address`.
        folder: the study's state, for the manifest and the artifacts.
    """

    def __init__(self, study: str, description: str, address: str, folder: StudyFolder) -> None:
        self.study = study
        self.description = description
        self.address = address
        self.folder = folder
        self.run_ids: dict[str, str] = {}  # of the trials that were sent or looked up here, by key
        self._walk = Projector(self, description)
        self._events: Sequence[Event] = ()  # as last given
        self._open_client: MlflowClient | None = None
        self._experiment = ""
        self._rest_until = 0.0

    def catch_up(
        self, events: Sequence[Event], *, patient: bool = False, enough: Callable[[], bool] = lambda: False
    ) -> int:
        """Bring MLflow up to date with the log, and return how many events that took.

        Args:
            events: the whole log so far, from its first event; each call may give more of it.
            patient: try even if the last call failed a moment ago; for the last call of a session.
            enough: asked before each event; once it says True the rest is left for another call.

        Raises:
            TrackingUnavailable: MLflow does not answer; call again later, nothing is lost or sent twice.
            TrackingError: MLflow answers, but cannot take this study (its experiment was deleted, say).
        """
        if not events:
            return 0
        self._events = events
        with self._reaching(patient):
            return self._walk.catch_up(events, enough)

    def left(self) -> int:
        """How many events of the last call's log MLflow has not been given."""
        return len(self._events) - self._walk.position

    # --- artifacts and models -------------------------------------------------------------------------------

    def log_artifacts(self, paths: Sequence[Path] | None = None) -> None:
        """Put files and folders at the parent run; what is there under the same name is replaced.

        Args:
            paths: the report's folder, the resolved study and the data card, where they exist, if not given.

        Raises:
            TrackingUnavailable: MLflow does not answer, or `catch_up` has not reached it yet.
        """
        if paths is None:
            wanted = (self.folder.report, self.folder.study_json, self.folder.data_card)
            paths = [path for path in wanted if path.exists()]
        with self._reaching(patient=True):
            run_id = self._study_run().run_id
            for path in paths:
                if path.is_dir():
                    name = "report" if path == self.folder.report else path.name
                    self._client().log_artifacts(run_id, str(path), name)
                else:
                    self._client().log_artifact(run_id, str(path))

    def log_model(
        self,
        model: torch.nn.Module,
        example: np.ndarray[Any, np.dtype[np.float32]],
        metadata: Mapping[str, Any],
        trial_id: str,
    ) -> str:
        """Log a trial's model, exported by torch.export, and return its address (`models:/m-...`).

        A second call for the same trial returns the first model's address. The stored input example is grey, of
        the given shape: no image of the user leaves the machine with the model.

        Args:
            model: images (N, 3, H, W) in [0, 1] to logits (N, classes); exported on the CPU in eval mode.
            example: float32 (2, 3, H, W); only its shape matters, and a batch of one would fix the batch size.
            metadata: JSON values kept beside the model: classes, configuration, validation score.
            trial_id: the trial it belongs to; `catch_up` has seen its record.

        Raises:
            TrackingUnavailable: MLflow does not answer.
            TrackingError: the model cannot be exported.
        """
        if example.ndim != 4 or example.shape[0] < 2:
            raise ValueError(f"the example must be a batch of at least two images, but got the shape {example.shape}")
        with self._reaching(patient=True):
            self._study_run()
            run = self._walk.trial_run(trial_id)
            if run is None:
                raise TrackingError(f"{trial_id} is not in MLflow yet: its record has to be sent first.")
            uri = run.tags.get("model_uri")
            if uri is None or not holds_model(self._client(), uri):
                uri = self._ready_model(run.run_id)
            if uri is None:
                # made here, because MLflow's own function would put it into the default experiment
                made = self._client().create_logged_model(self._experiment, "model", run.run_id)
                with global_tracking(self.address):
                    export_model(model, example, metadata, run.run_id, made.model_id)
                uri = str(made.model_uri)
            if run.tags.get("model_uri") != uri:
                self.log(run, shown.Update(tags={"model_uri": uri}))
            return uri

    def _ready_model(self, run_id: str) -> str | None:
        """The model of a run that was logged to its end before a crash; half-logged ones are removed."""
        from mlflow.entities import LoggedModelStatus

        found = None
        for model in self._client().search_logged_models([self._experiment], f"source_run_id = '{run_id}'"):
            if model.status == LoggedModelStatus.READY and holds_model(self._client(), model.model_uri):
                found = str(model.model_uri)
            else:
                self._client().delete_logged_model(model.model_id)
        return found

    def holds_model(self, uri: str) -> bool:
        """Whether a model that was logged is still there.

        Raises:
            TrackingUnavailable: MLflow does not answer.
        """
        with self._reaching(patient=True):
            return holds_model(self._client(), uri)

    # --- addresses of pages ---------------------------------------------------------------------------------

    def run_page(self, base_url: str) -> str:
        """The parent run's page on a server at `base_url`; '' before the first `catch_up`."""
        parent = self._walk.parent
        if parent is None:
            return ""
        return f"{base_url.rstrip('/')}/#/experiments/{self._experiment}/runs/{parent.run_id}?{shown.MODE}"

    # --- reaching MLflow ------------------------------------------------------------------------------------

    @contextmanager
    def _reaching(self, patient: bool) -> Iterator[None]:
        """Turn every failure of MLflow into one error, and forget what can no longer be relied on."""
        where = masked(self.address)
        later = "the study goes on, and MLflow is brought up to date when it answers again"
        if not patient and time.monotonic() < self._rest_until:
            raise TrackingUnavailable(f"MLflow at {where} did not answer a moment ago; {later}.")
        began = time.monotonic()
        try:
            if is_remote(self.address) and not answers(self.address):
                raise ConnectionError("nothing listens there")
            yield
        except failures() as error:
            now = time.monotonic()
            self._rest_until = now + REST_AFTER_FAILURE * (now - began)
            self._walk.disconnect()
            raise TrackingUnavailable(f"MLflow at {where} does not answer ({reason(error)}); {later}.") from None

    def _client(self) -> MlflowClient:
        if self._open_client is None:
            prepare_store(self.address)
            self._open_client = open_client(self.address)
        return self._open_client

    def _study_run(self) -> Run:
        """The parent run, found again after a failure."""
        if self._walk.parent is None and self._events:
            self._walk.catch_up(self._events)
        if self._walk.parent is None:
            raise TrackingUnavailable("MLflow does not know this study yet: its events have to be sent first.")
        return self._walk.parent

    # --- what the projector asks for (projector.RunStore) ---------------------------------------------------

    def open_study(self, first: Event) -> tuple[Run, bool]:
        """Find the study's experiment and parent run, or make them."""
        self._experiment = self._study_experiment()
        identity = shown.study_id(self.study, first)
        parent = self._search(f"tags.`harness.study_id` = '{identity}'")
        if parent is not None:
            return parent, True
        tags = {"harness.study_id": identity, "kind": "study", "state": "running"}
        tags["mlflow.note.content"] = shown.note(self.description, None)
        parent = self._create(self.study, tags, first.at)
        view = shown.view_state(first.data.objective if isinstance(first.data, StudyCreated) else None)
        self._client().set_experiment_tag(self._experiment, shown.VIEW_TAG, view)
        return parent, False

    def _study_experiment(self) -> str:
        """The id of the experiment of this study's name."""
        client = self._client()
        experiment = client.get_experiment_by_name(self.study)
        if experiment is None:
            # a server keeps artifacts in its own place; with a database it is ours to say
            place = None if is_remote(self.address) else (home() / "artifacts" / self.study).as_uri()
            note = shown.shortened(self.description, shown.EXPERIMENT_TAG_LIMIT)
            # the kind opens the table of runs, where the UI would start with traces of language models
            tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": note}
            return str(client.create_experiment(self.study, artifact_location=place, tags=tags))
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {self.study!r} was deleted, and its name stays taken; bring it back with "
                f"`MLFLOW_TRACKING_URI={masked(self.address)} mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or start the study under another name (AS=newname)."
            )
        return str(experiment.experiment_id)

    def find_trial(self, parent: Run, key: str) -> Run | None:
        run = self._search(f"tags.`harness.key` = '{key}' and tags.`mlflow.parentRunId` = '{parent.run_id}'")
        if run is not None:
            self.run_ids[key] = run.run_id
        return run

    def _search(self, condition: str) -> Run | None:
        from mlflow.entities import ViewType

        found: list[mlflow.entities.Run] = self._client().search_runs(
            [self._experiment], condition, ViewType.ALL, max_results=1
        )
        if not found:
            return None
        info = found[0].info
        if info.lifecycle_stage == "deleted":  # by hand, in the UI; the log says that it happened
            self._client().restore_run(info.run_id)
        return Run(info.run_id, info.status, dict(found[0].data.tags))

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        run = self._create(name, {**tags, "mlflow.parentRunId": parent.run_id}, at)
        self.run_ids[tags["harness.key"]] = run.run_id
        return run

    def _create(self, name: str, tags: dict[str, str], at: str) -> Run:
        tags = {**tags, "mlflow.source.name": "harness", "mlflow.source.type": "LOCAL"}
        made = self._client().create_run(self._experiment, shown.milliseconds(at), tags, name)
        return Run(made.info.run_id, tags=tags)

    def set_status(self, run: Run, status: str, at: str | None = None) -> None:
        if run.status == status:
            return
        if at is None or status == "RUNNING":
            self._client().update_run(run.run_id, status=status)
        else:
            self._client().set_terminated(run.run_id, status, end_time=shown.milliseconds(at))
        run.status = status

    def log(self, run: Run, update: shown.Update, *, doubtful: bool = False) -> None:
        """Send an update in as few batches as MLflow allows; the tags go with the last one."""
        from mlflow.entities import Metric, Param, RunTag

        points, params = list(update.metrics), dict(update.params)
        if doubtful and (points or params):
            points, params = self._missing(run.run_id, points, params)
        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        entries = [Param(name, value) for name, value in params.items()]
        tags = [RunTag(name, value) for name, value in update.tags.items()]
        while len(metrics) > METRICS_A_BATCH or len(entries) > PARAMS_A_BATCH:
            self._client().log_batch(run.run_id, metrics[:METRICS_A_BATCH], entries[:PARAMS_A_BATCH])
            del metrics[:METRICS_A_BATCH], entries[:PARAMS_A_BATCH]
        self._client().log_batch(run.run_id, metrics, entries, tags)
        run.tags.update(update.tags)

    def _missing(
        self, run_id: str, points: Sequence[shown.Point], params: Mapping[str, str]
    ) -> tuple[list[shown.Point], dict[str, str]]:
        """The metrics and parameters that a run does not hold yet."""
        held = self._client().get_run(run_id).data
        names = {point.name for point in points} & set(held.metrics)
        there = {(name, old.step) for name in names for old in self._client().get_metric_history(run_id, name)}
        left = {name: value for name, value in params.items() if name not in held.params}
        return [point for point in points if (point.name, point.step) not in there], left

    def log_data(self, parent: Run) -> None:
        """The split manifest as the parent's dataset, once; it holds no labels of the test part."""
        if "harness.dataset" in parent.tags or not self.folder.manifest.exists():
            return
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        content = self.folder.manifest.read_bytes()
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=str)
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = shown.shortened(str(self._data_card().get("name") or self.study), DATASET_NAME_LIMIT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow registers its local source twice, and says so
            # the file's name alone: a path of this machine would mean nothing to another reader
            dataset = from_pandas(table, source=self.folder.manifest.name, name=name, digest=digest)
        entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "split manifest")])
        self._client().log_inputs(parent.run_id, datasets=[entry])
        self.log(parent, shown.Update(tags={"harness.dataset": digest}))

    def data_digest(self) -> str | None:
        digest = self._data_card().get("digest")
        return digest if isinstance(digest, str) else None

    def _data_card(self) -> dict[str, Any]:
        try:
            card = json.loads(self.folder.data_card.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) else {}
