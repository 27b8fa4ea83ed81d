"""Export models to MLflow without pickle and with a signature, load them, and check that they exist."""

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
from harness.tracking.mlflow_store import connected_client, import_mlflow

if TYPE_CHECKING:
    import numpy as np
    import torch
    from mlflow import MlflowClient

_DEVICE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"


@contextmanager
def global_tracking(address: str) -> Iterator[None]:
    """Set the address of MLflow's module-level functions inside the block; they have no parameter for it.

    Warnings of MLflow and of torch's exporter inside the block are hidden, because the user cannot act on them.
    """
    import_mlflow()
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(address)
    # Our exported models are on the CPU. On a machine with a GPU, MLflow would run them on the GPU and fail.
    device = os.environ.get(_DEVICE)
    os.environ[_DEVICE] = "cpu"
    environment = logging.getLogger("mlflow.utils.environment")  # it warns if pip is not installed
    level = environment.level
    environment.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        environment.setLevel(level)
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # this removes the address from the environment too
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
        os.environ.pop(_DEVICE)
        if device is not None:
            os.environ[_DEVICE] = device


def holds_model(client: MlflowClient, uri: str) -> bool:
    """Whether MLflow holds this model (`models:/m-...`), with its files if they are stored on this machine."""
    from mlflow.exceptions import MlflowException

    try:
        location = str(client.get_logged_model(uri.rpartition("/")[2]).artifact_location)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    path = local_path(location)
    return path is None or (path / "MLmodel").is_file()


def missing_models(address: str, uris: Mapping[str, str]) -> list[str]:
    """Return the URIs of logged models that MLflow does not hold.

    Args:
        uris: trial_id -> URI.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with connected_client(address) as client:
        return [uri for uri in uris.values() if not holds_model(client, uri)]


def load_model(address: str, uri: str) -> torch.nn.Module:
    """Load a logged model: images (N, C, H, W) in [0, 1] to logits (N, classes), N at least 1. It uses no pickle."""
    with global_tracking(address):
        import mlflow.pytorch

        model: torch.nn.Module = mlflow.pytorch.load_model(uri)
        return model


def export_model(
    model: torch.nn.Module, example: np.ndarray[Any, Any], metadata: Mapping[str, Any], run_id: str, model_id: str
) -> None:
    """Write the exported graph, signature and requirements of a logged model; MLflow then marks it as ready."""
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
    # given here, because MLflow would find them by running the model in other processes, which takes minutes
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
    except Exception as error:  # the errors of torch.export have no common base class
        raise TrackingError(f"the model cannot be exported for MLflow: {type(error).__name__}: {error}") from error
