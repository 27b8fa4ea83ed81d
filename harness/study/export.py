"""The recommended model, as something to use: images in, logits out, logged to MLflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from harness.model.transfer import TransferModel
from harness.study.prepare import confirmation_split
from harness.study.session import Session
from harness.training.trial import TrialJob, restore


class Deployable(nn.Module):
    """A trained model with its normalisation inside: (B, 3, S, S) float32 in [0, 1] -> (B, C) logits."""

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


def log_recommended(session: Session, conclusion: dict[str, Any]) -> None:
    """Log the model of the recommendation: the winner's confirmation trial with the median validation score."""
    recommendation = conclusion.get("recommendation") or {}
    record = session.history.confirmed.get(recommendation.get("trial_id", ""))
    if record is None:
        return
    job = TrialJob(
        record.trial_id, record.kind, record.strategy, record.slot, record.config, record.seed,
        confirmation_split(record.slot), record.attempt,
    )  # fmt: skip
    context = session.prepared.context
    data = context.data(record.config.backbone, job.split)
    model = restore(job, data, context.weights, torch.device("cpu"), context.checkpoint(job))
    example = data.batch(data.validation[:2], torch.device("cpu")).numpy().astype(np.float32)
    metadata = {
        "classes": list(session.prepared.dataset.classes), "study": session.prepared.name,
        "trial_id": record.trial_id, "objective": session.study.objective, "validation_score": record.score,
        "image_size": int(data.images.shape[1]), "input": "RGB, float32 in [0, 1], (batch, 3, size, size)",
    }  # fmt: skip
    uri = session.tracker.log_model(Deployable(model).eval(), example, metadata, record)
    if uri is not None:
        session.append("model_logged", {
            "uri": uri, "trial_id": record.trial_id, "validation_score": record.score,
        })  # fmt: skip
