"""Export the recommended model to MLflow, in a form that takes images and returns logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from harness.errors import ContractError, ResourceError
from harness.model.transfer import TransferModel
from harness.results.event_types import ModelLogged
from harness.study.session import Session
from harness.training import contract
from harness.training.loop import predict_images
from harness.training.trial import restore
from harness.training.trial_data import TrialData


class Deployable(nn.Module):
    """A trained model that includes its normalisation: images (B, C, S, S) in [0, 1] to logits."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(model.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(model.std)[None, :, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model((images - self.mean) / self.std)
        return logits


def log_recommended(session: Session, trial_id: str) -> None:
    """Log the model of the recommended trial: the winner's confirmation trial with the median validation score.

    The model is not logged if it gives other probabilities than the trained model, or has other classes. The observer
    then gets a message.
    """
    record = session.state.later.get(trial_id)
    if record is None:
        return
    job, context = record.job, session.prepared.context
    data = context.data(record.config.backbone, job.split, weights=record.config.weights)
    classes = tuple(session.prepared.dataset.classes)
    try:
        model = restore(job, data, context.weights_of(job.config), torch.device("cpu"), context.checkpoint(job))
        contract.check_classes(data.classes, classes)
        deployable = Deployable(model).eval()
        _check_answers(deployable, model, data)
    except ContractError as error:
        session.observer.message(f"The recommended model was not logged: {error}.")
        return
    except ResourceError as error:
        session.observer.message(
            f"The recommended model was not logged: {error}. `harness doctor {session.prepared.name} --fix` repairs "
            "it, and then the next `make study` of this name logs the model."
        )
        return
    example = data.batch(data.validation[:2], torch.device("cpu")).numpy().astype(np.float32)
    metadata = {
        "classes": list(classes),
        "study": session.prepared.name,
        "trial_id": record.trial_id,
        "objective": session.study.objective,
        "validation_score": record.score,
        "image_size": int(data.images.shape[1]),
        "channels": data.channels,
        "bit_depth": session.study.data.bit_depth,
        "value_range": session.prepared.data.value_range,
        "input": f"{_kind(data.channels)}, float32 in [0, 1], (batch, {data.channels}, size, size)",
    }
    uri = session.tracker.log_model(deployable, example, metadata, record)
    if uri is not None:
        session.append(ModelLogged(uri, record.trial_id, record.score))


def _kind(channels: int) -> str:
    return "RGB" if channels == 3 else f"{channels} channel{'s' if channels > 1 else ''} in the order of the files"


def _check_answers(deployable: Deployable, model: TransferModel, data: TrialData) -> None:
    """Check that the exported model gives the probabilities of the trained model on a few validation images."""
    cpu, rows = torch.device("cpu"), data.validation[:8]
    expected = predict_images(model, data, rows, len(rows), cpu)
    with torch.inference_mode():
        exported = deployable(data.batch(rows, cpu)).softmax(dim=1).numpy()
    contract.check_export(expected, exported)
