"""`epochs: auto`: as many epochs as the training images need for a stated number of optimizer steps.

A few hundred images give a few steps an epoch, and then the number of epochs that suits thousands of images leaves the
head, and a fine-tuned backbone even more, far from trained.
"""

from __future__ import annotations

from harness.config.space import space
from harness.config.study import AUTO, StudyConfig

STEPS = 200  # wanted optimizer steps of a trial
FEWEST, MOST = 5, 50  # epochs


def steps_per_epoch(study: StudyConfig, train_images: int) -> int:
    """Return the optimizer steps of an epoch with the default batch size, which is the same for all strategies."""
    batch = max(space(study, strategy).default().batch_size for strategy in study.strategies)
    return max(train_images // batch, 1)


def with_epochs(study: StudyConfig, train_images: int) -> tuple[StudyConfig, str | None]:
    """Return the study with a number of epochs, and a sentence that says how it came about; None if the file gives it.

    Args:
        train_images: number of images in the training part of the search.
    """
    if study.epochs != AUTO:
        return study, None
    steps = steps_per_epoch(study, train_images)
    epochs = min(max(-(-STEPS // steps), FEWEST), MOST)
    bound = f"; at least {FEWEST}" if epochs == FEWEST else f"; at most {MOST}" if epochs == MOST else ""
    return study.model_copy(update={"epochs": epochs}), (
        f"Epochs: {epochs} for every trial, chosen for about {STEPS} optimizer steps ({train_images:,} training "
        f"images, {steps} steps an epoch, {epochs * steps:,} steps in all{bound})."
    )
