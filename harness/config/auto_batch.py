"""The batch size of a study that names none: the usual default, or less if the training images are few."""

from __future__ import annotations

from harness.config.parameters import PARAMETERS
from harness.config.ranges import Fixed
from harness.config.study import StudyConfig

STEPS = 16  # an epoch has at least so many optimizer steps, if batches of LEAST allow it
LEAST = 8  # BatchNorm estimates its statistics badly on smaller batches


def fitted_batch_size(train_images: int) -> int:
    """Return the default batch size for this number of training images: a power of two that is at most the default."""
    usual = int(PARAMETERS["batch_size"].default)
    wanted = max(train_images // STEPS, LEAST)
    return max(1 << (min(wanted, max(train_images // 2, 1), usual).bit_length() - 1), 1)


def with_batch_size(study: StudyConfig, train_images: int) -> tuple[StudyConfig, str | None]:
    """Return the study with a batch size that fits, and a sentence that says so; None if nothing was changed.

    Args:
        train_images: number of images in the smallest training part of all splits.
    """
    if "batch_size" in study.ranges():
        return study, None
    size = fitted_batch_size(train_images)
    if size == PARAMETERS["batch_size"].default:
        return study, None
    return study.model_copy(update={"batch_size": Fixed(size)}), (
        f"Batch size: {size} instead of {PARAMETERS['batch_size'].default}, because there are {train_images:,} "
        "training images; the key batch_size sets another."
    )
