"""Compute what a trial with given parameters would train, for `harness inspect`, and what of a checkpoint is used."""

from __future__ import annotations

from typing import Any

from harness.config.backbone_specs import check_image_size
from harness.config.parameters import PARAMETERS, unknown_parameter
from harness.config.space import side_of, space
from harness.config.study import AUTO, StudyConfig
from harness.config.trial import Strategy, TrialConfig
from harness.errors import ConfigError
from harness.model import weights
from harness.model.meta import build_shapes
from harness.model.summary import Part, parts

ASSUMED_EPOCHS = 10


def checkpoint_text(study: StudyConfig, config: TrialConfig) -> str | None:
    """Return what of the user's checkpoint would be used for a configuration; None if it starts from other weights.

    Raises:
        ConfigError: there is no such file, or it does not fit the backbone.
    """
    chosen = study.weights.named(config.weights)
    if not chosen.is_file or config.strategy == "from_scratch":
        return None
    report = weights.available(chosen, config.backbone, side_of(study, config.backbone, chosen))
    return None if report is None else report.text


def inspect_trial(
    study: StudyConfig, chosen: dict[str, str], num_classes: int, epochs: int | None = None, channels: int = 3
) -> tuple[TrialConfig, list[Part]]:
    """Return the configuration with these parameters and otherwise the study's defaults, and its stages.

    Args:
        chosen: parameters and their values as text. They need not be in the study's search space. `unfreeze_depth` 0
            is feature extraction.
        epochs: None for the study's number, or ASSUMED_EPOCHS if the study chooses it from its images.
        channels: of the images.

    Raises:
        ConfigError: a parameter is unknown, a value is out of its range, or a schedule has too few epochs.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    strategy: Strategy = "feature_extraction" if chosen.get("unfreeze_depth") == "0" else "fine_tuning"
    for name, value in chosen.items():
        if name == "unfreeze_depth" and strategy == "feature_extraction":
            continue  # the strategy fixes it
        if name not in PARAMETERS:
            faults.append(f"{name}: {unknown_parameter(name)}")
            continue
        try:
            values[name] = PARAMETERS[name].check(value)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise ConfigError("--set, --backbone and --depth must hold valid values, but:", faults)
    epochs = epochs or (ASSUMED_EPOCHS if study.epochs == AUTO else study.epochs)
    config = space(study.model_copy(update={"epochs": epochs}), strategy).config(values)
    size = study.data.image_size if isinstance(study.data.image_size, int) else None
    if size is not None:
        check_image_size(config.backbone, size)
    model = build_shapes(
        config.backbone,
        num_classes,
        image_size=size,
        in_channels=channels,
        head=config.head,
        head_hidden=config.head_hidden,
        head_dropout=config.head_dropout,
        head_init=config.head_init,
    )
    return config, parts(model, config)
