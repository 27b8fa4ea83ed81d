"""What one training costs, in FLOPs that follow from its configuration.

Seconds are measured, and the same study measures others each time it runs; which of two strategies is the cheaper one
must not depend on that. So costs are compared in floating-point operations, which are known from the backbone, the
unfreeze depth and schedule, and the number of passes over the images.
"""

from __future__ import annotations

from harness.config.backbone_costs import cost
from harness.config.backbone_specs import backbone_spec
from harness.config.strategies import STAGES
from harness.config.study import StudyConfig
from harness.config.trial import TrialConfig
from harness.config.unfreezing import unfrozen_stages

MARGIN = 1.1  # costs that differ by less count as equal


def flops_per_image(config: TrialConfig, study: StudyConfig) -> float:
    """Return the FLOPs that a whole training computes for each training image: every pass forward and backward.

    The head is left out, since it is small beside any backbone, and with it the solver of a logistic head, which costs
    only its passes. All sharing of frozen work is left out as well, since it depends on which other trials there are.
    A model that unfreezes from the stem computes the whole backward pass.
    """
    known, spec = cost(config.backbone), backbone_spec(config.backbone)
    size = spec.native_size if study.data.image_size == "native" else int(study.data.image_size)
    scale = (size / spec.native_size) ** 2
    total = 0.0
    for epoch in range(1, config.passes() + 1):
        stages = unfrozen_stages(config, epoch)
        depth = 0 if not stages else len(known.forward) - STAGES.index(stages[0])
        total += sum(known.forward) + known.backward[depth]
    return scale * total


def cost_ratio(one: TrialConfig, other: TrialConfig, study: StudyConfig) -> float:
    """Return the FLOPs of a training of `one` divided by those of `other`."""
    return flops_per_image(one, study) / flops_per_image(other, study)
