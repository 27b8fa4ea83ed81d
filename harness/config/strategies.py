"""The names of the strategies that a study compares, and of the stages that every backbone is divided into."""

from __future__ import annotations

from typing import Literal, get_args

Strategy = Literal["feature_extraction", "fine_tuning", "from_scratch"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
DEPTH_MAX = len(STAGES)
