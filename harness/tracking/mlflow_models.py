"""Models in MLflow: exported without pickle, with a signature, and loaded again."""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.tracking.address import TrackingError, local_path
from harness.tracking.mlflow_store import import_mlflow, reached

if TYPE_CHECKING:
    import numpy as np
    import torch
    from mlflow import MlflowClient

_DEVICE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"


@contextmanager
def global_tracking(address: str) -> Iterator[None]:
    """Let MLflow's module-level functions use this address for a while; they take no address of their own.

    What MLflow and torch's exporter warn of in there (types they cannot check, names on their way out) is theirs.
    """
    import_mlflow()
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(address)
    # Our exports lie on the CPU. Where there is a GPU, MLflow would try them on that, and fail.
    device = os.environ.get(_DEVICE)
    os.environ[_DEVICE] = "cpu"
    environment = logging.getLogger("mlflow.utils.environment")  # warns where pip is not installed: uv needs none
    level = environment.level
    environment.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        environment.setLevel(level)
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # it takes the address out of the environment too
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
        os.environ.pop(_DEVICE)
        if device is not None:
            os.environ[_DEVICE] = device


def holds_model(client: MlflowClient, uri: str) -> bool:
    """Whether MLflow knows this model (`models:/m-...`), and has its files where they lie on this machine."""
    from mlflow.exceptions import MlflowException

    try:
        place = str(client.get_logged_model(uri.rpartition("/")[2]).artifact_location)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    path = local_path(place)
    return path is None or (path / "MLmodel").is_file()


def missing_models(address: str, uris: Mapping[str, str]) -> list[str]:
    """Addresses of logged models, by trial, that are not there.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with reached(address) as client:
        return [uri for uri in uris.values() if not holds_model(client, uri)]


def load_model(address: str, uri: str) -> torch.nn.Module:
    """A logged model: images (N, 3, H, W) in [0, 1], N of 1 or more, to logits (N, classes); runs no pickle."""
    with global_tracking(address):
        import mlflow.pytorch

        model: torch.nn.Module = mlflow.pytorch.load_model(uri)
        return model


def export_model(
    model: torch.nn.Module, example: np.ndarray[Any, Any], metadata: Mapping[str, Any], run_id: str, model_id: str
) -> None:
    """Fill a logged model: exported graph, signature, requirements; MLflow marks it as ready at the end."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    plain = copy.deepcopy(model).cpu().eval()
    grey = np.full(example.shape, 0.5, np.float32)
    with torch.no_grad():
        classes = plain(torch.from_numpy(grey)).shape[1]
    kind = np.dtype(np.float32)
    signature = ModelSignature(
        Schema([TensorSpec(kind, (-1, *example.shape[1:]))]), Schema([TensorSpec(kind, (-1, classes))])
    )
    # named here, because working them out would import and run the model in other processes for minutes
    needed = ("torch", "numpy", "mlflow")
    requirements = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in needed]
    try:
        mlflow.pytorch.log_model(
            plain,
            model_id=model_id,
            run_id=run_id,
            signature=signature,
            input_example=grey,
            pip_requirements=requirements,
            metadata=dict(metadata),
            serialization_format="pt2",
        )
    except (MlflowException, OSError):
        raise
    except Exception as error:  # torch.export has no common base for what it cannot trace
        raise TrackingError(f"the model cannot be exported for MLflow: {type(error).__name__}: {error}") from error
