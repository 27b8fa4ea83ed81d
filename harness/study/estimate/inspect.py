"""A study file and a few chosen values -> what such a trial would train."""

from __future__ import annotations

from typing import Any

from harness.config.backbone_specs import check_image_size
from harness.config.parameters import PARAMETERS, unknown_parameter
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.config.trial import Strategy, TrialConfig
from harness.errors import ConfigError
from harness.model.meta import build_shapes
from harness.model.summary import Part, parts


def inspected(study: StudyConfig, chosen: dict[str, str], num_classes: int) -> tuple[TrialConfig, list[Part]]:
    """The configuration with these parameters, the study's defaults elsewhere, and its stages.

    Args:
        chosen: parameters and values, which need not lie in the study's search; `unfreeze_depth` 0 is feature
            extraction.

    Raises:
        ConfigError: an unknown parameter, a value out of its range, or a schedule without an epoch for each phase.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    strategy: Strategy = "feature_extraction" if chosen.get("unfreeze_depth") == "0" else "fine_tuning"
    for name, value in chosen.items():
        if name == "unfreeze_depth" and strategy == "feature_extraction":
            continue  # settled by the strategy
        if name not in PARAMETERS:
            faults.append(f"{name}: {unknown_parameter(name)}")
            continue
        try:
            values[name] = PARAMETERS[name].check(value)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise ConfigError("what --set, --backbone and --depth say cannot be taken:", faults)
    here = space(study, strategy)
    config = here.config(values)
    size = study.data.image_size if isinstance(study.data.image_size, int) else None
    if size is not None:
        check_image_size(config.backbone, size)
    model = build_shapes(
        config.backbone,
        num_classes,
        image_size=size,
        head=config.head,
        head_hidden=config.head_hidden,
        head_dropout=config.head_dropout,
        head_init=config.head_init,
    )
    return config, parts(model, config)
