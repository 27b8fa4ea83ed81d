"""Write a study's event log to MLflow. Only the four files mlflow_*.py import mlflow.

`mlflow_own_runs` finds and creates the runs that are written here; the parent run holds what belongs to no single
trial: the description, the data, the verdict and the report. `replay` decides what is sent when, and why nothing is
sent twice.
"""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.event_types import SessionEnded
from harness.results.events import Event
from harness.results.paths import StudyFolder
from harness.results.stored_study import object_or_empty
from harness.safe_text import masked
from harness.tracking import mapping
from harness.tracking.address import TrackingError, TrackingUnavailable, answers, is_remote
from harness.tracking.mlflow_models import export_model, global_tracking, holds_model
from harness.tracking.mlflow_own_runs import OwnRuns
from harness.tracking.mlflow_store import failures, open_client, prepare_store, reason
from harness.tracking.moved_home import follow_home
from harness.tracking.replay import Projector, Run

if TYPE_CHECKING:
    import numpy as np
    import torch
    from mlflow import MlflowClient

METRICS_A_BATCH = 800  # MLflow takes 1,000 metrics, parameters and tags together
PARAMS_A_BATCH = 100
DATASET_NAME_LIMIT = 500  # characters
REST_AFTER_FAILURE = 20.0  # pause as a multiple of the failed call's time, so a hanging server takes under 5 %


class MlflowBridge:
    """Brings MLflow to the state that a study's event log describes.

    Args:
        study: name of the study, of the experiment and of the parent run.
        description: the study's description, shown above the parent run.
        address: from `address.tracking_address`.
        folder: folder of the study, for the manifest and the artifacts.
    """

    def __init__(self, study: str, description: str, address: str, folder: StudyFolder) -> None:
        self.study = study
        self.description = description
        self.address = address
        self.folder = folder
        self._projector = Projector(self, description)
        self._events: Sequence[Event] = ()  # the log as of the last `catch_up`
        self._open_client: MlflowClient | None = None
        self._own = OwnRuns(study, description, address, self._client)
        self._rest_until = 0.0

    def catch_up(
        self, events: Sequence[Event], *, retry_now: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> int:
        """Send the events that MLflow lacks, and return their number. It may be called any number of times.

        Args:
            events: the whole log so far, from its first event.
            retry_now: try even if the last call has just failed; for the last call of a session.
            should_stop: called before each event; if it returns True, the rest is left for another call.

        Raises:
            TrackingUnavailable: MLflow does not answer. Call again later: nothing is lost or sent twice.
            TrackingError: MLflow answers, but cannot store this study, for example because its experiment was deleted.
        """
        if not events:
            return 0
        self._events = events
        with self._connection(retry_now):
            sent = self._projector.catch_up(events, should_stop)
            if sent and is_remote(self.address) and isinstance(events[-1].data, SessionEnded):
                self.trial_runs(self._study_run())  # a request that was given up may have been carried out late
            return sent

    @property
    def run_ids(self) -> dict[str, str]:
        """The ids of the trials' runs by key, as far as they were created or found here."""
        return self._own.run_ids

    @property
    def restored(self) -> int:
        """How many runs had been deleted by hand and were restored."""
        return self._own.restored

    def left(self) -> int:
        """Return how many events of the last `catch_up` were not sent."""
        return len(self._events) - self._projector.position

    # --- artifacts and models -------------------------------------------------------------------------------

    def log_artifacts(self, paths: Sequence[Path] | None = None) -> None:
        """Log files and folders as artifacts of the parent run; artifacts of the same name are replaced.

        Args:
            paths: by default the report's folder, the resolved study and the data card, if they exist.

        Raises:
            TrackingUnavailable: MLflow does not answer, or `catch_up` has not succeeded yet.
        """
        if paths is None:
            wanted = (self.folder.report, self.folder.study_json, self.folder.data_card)
            paths = [path for path in wanted if path.exists()]
        with self._connection(retry_now=True):
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
        """Log a trial's model, exported by torch.export, and return its URI (`models:/m-...`).

        A second call for the same trial returns the URI of the first model. The stored input example is grey and has
        the given shape, so that no image of the user leaves the machine with the model.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, classes); exported on the CPU in eval mode.
            example: float32 (2, C, H, W); only its shape is used. A batch of one would fix the batch size of the
                export.
            metadata: JSON values stored with the model: classes, configuration, validation score.
            trial_id: the model's trial; `catch_up` must have sent its record.

        Raises:
            TrackingUnavailable: MLflow does not answer.
            TrackingError: the model cannot be exported.
        """
        if example.ndim != 4 or example.shape[0] < 2:
            raise ValueError(f"the example must be a batch of at least two images, but got the shape {example.shape}")
        with self._connection(retry_now=True):
            self._study_run()
            run = self._projector.trial_run(trial_id)
            if run is None:
                raise TrackingError(f"{trial_id} is not in MLflow yet: its record has to be sent first.")
            uri = run.tags.get("model_uri")
            if uri is None or not holds_model(self._client(), uri):
                uri = self._ready_model(run.run_id)
            if uri is None:
                # created here, because MLflow's own function would create it in the default experiment
                logged = self._client().create_logged_model(self._own.experiment, "model", run.run_id)
                with global_tracking(self.address):
                    export_model(model, example, metadata, run.run_id, logged.model_id)
                uri = str(logged.model_uri)
                self._remove_other_models(run.run_id, uri)
            if run.tags.get("model_uri") != uri:
                self.log(run, mapping.Update(tags={"model_uri": uri}))
            return uri

    def _ready_model(self, run_id: str) -> str | None:
        """Return the URI of a run's model that was logged completely; delete the ones that a crash left incomplete."""
        from mlflow.entities import LoggedModelStatus

        found = None
        for model in self._client().search_logged_models([self._own.experiment], f"source_run_id = '{run_id}'"):
            if model.status == LoggedModelStatus.READY and holds_model(self._client(), model.model_uri):
                found = str(model.model_uri)
            else:
                self._client().delete_logged_model(model.model_id)
        return found

    def _remove_other_models(self, run_id: str, uri: str) -> None:
        """Delete models that the server made when the request for this one was repeated."""
        if not is_remote(self.address):
            return
        for model in self._client().search_logged_models([self._own.experiment], f"source_run_id = '{run_id}'"):
            if str(model.model_uri) != uri:
                self._client().delete_logged_model(model.model_id)

    def holds_model(self, uri: str) -> bool:
        """Whether a logged model is still in MLflow.

        Raises:
            TrackingUnavailable: MLflow does not answer.
        """
        with self._connection(retry_now=True):
            return holds_model(self._client(), uri)

    # --- the connection to MLflow ---------------------------------------------------------------------------

    @contextmanager
    def _connection(self, retry_now: bool) -> Iterator[None]:
        """Raise every failure of MLflow as TrackingUnavailable, and look up the parent run again after it."""
        where = masked(self.address)
        later = "the study goes on, and MLflow is brought up to date when it answers again"
        if not retry_now and time.monotonic() < self._rest_until:
            raise TrackingUnavailable(f"MLflow at {where} did not answer a moment ago; {later}.")
        started = time.monotonic()
        try:
            if is_remote(self.address) and not answers(self.address):
                raise ConnectionError("nothing listens there")
            yield
        except failures() as error:
            now = time.monotonic()
            self._rest_until = now + REST_AFTER_FAILURE * (now - started)
            self._projector.disconnect()
            raise TrackingUnavailable(f"MLflow at {where} does not answer ({reason(error)}); {later}.") from None

    def _client(self) -> MlflowClient:
        if self._open_client is None:
            prepare_store(self.address)
            follow_home(self.address)
            self._open_client = open_client(self.address)
        return self._open_client

    def _study_run(self) -> Run:
        """Return the parent run; after a failure it is looked up again."""
        if self._projector.parent is None and self._events:
            self._projector.catch_up(self._events)
        if self._projector.parent is None:
            raise TrackingUnavailable("MLflow does not hold this study yet: its events have to be sent first.")
        return self._projector.parent

    # --- the methods that the projector calls (replay.RunStore) ---------------------------------------------

    def open_study(self, first: Event) -> tuple[Run, bool]:
        return self._own.open_study(first)

    def trial_runs(self, parent: Run) -> dict[str, Run]:
        return self._own.trial_runs(parent)

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        return self._own.create_trial(parent, name, tags, at)

    def set_status(self, run: Run, status: str, at: str | None = None) -> None:
        if run.status == status:
            return
        if at is None or status == "RUNNING":
            self._client().update_run(run.run_id, status=status)
        else:
            self._client().set_terminated(run.run_id, status, end_time=mapping.milliseconds(at))
        run.status = status

    def log(self, run: Run, update: mapping.Update, *, doubtful: bool = False) -> None:
        """Send an update in as few batches as MLflow allows; the tags are in the last batch."""
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
        self, run_id: str, points: Sequence[mapping.Point], params: Mapping[str, str]
    ) -> tuple[list[mapping.Point], dict[str, str]]:
        """Return the metrics and parameters that a run does not hold yet."""
        held = self._client().get_run(run_id).data
        names = {point.name for point in points} & set(held.metrics)
        present = {(name, old.step) for name in names for old in self._client().get_metric_history(run_id, name)}
        left = {name: value for name, value in params.items() if name not in held.params}
        return [point for point in points if (point.name, point.step) not in present], left

    def log_data(self, parent: Run) -> None:
        """Log the manifest as the parent run's dataset, once; it holds no labels of the test part."""
        if "harness.dataset" in parent.tags or not self.folder.manifest.exists():
            return
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        content = self.folder.manifest.read_bytes()
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=str)
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = mapping.shortened(str(self._data_card().get("name") or self.study), DATASET_NAME_LIMIT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow registers its local source twice and warns about it
            # only the file's name, because a path of this machine is of no use to others
            dataset = from_pandas(table, source=self.folder.manifest.name, name=name, digest=digest)
        entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "split manifest")])
        self._client().log_inputs(parent.run_id, datasets=[entry])
        self.log(parent, mapping.Update(tags={"harness.dataset": digest}))

    def data_digest(self) -> str | None:
        digest = self._data_card().get("digest")
        return digest if isinstance(digest, str) else None

    def _data_card(self) -> dict[str, Any]:
        return object_or_empty(self.folder.data_card)
