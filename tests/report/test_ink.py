"""What a figure with many marks weighs."""

from __future__ import annotations

import numpy as np

from harness.report import ink
from harness.report.ink import drawing, picture


def drawn(marks: int, strategies: int) -> str:
    rng = np.random.default_rng(0)
    with drawing(400, 300) as (figure, axes):
        for _ in range(strategies):
            axes.scatter(rng.random(marks), rng.random(marks), s=40)
        axes.scatter([0.5], [0.5], s=190, facecolor="none", edgecolor=ink.INK)
        return picture(figure, "dense", "many marks").svg


def test_marks_of_all_strategies_together_decide_whether_they_become_pixels() -> None:
    few, many = drawn(100, 2), drawn(ink.DENSE * 2 // 3, 2)
    assert "<image" not in few
    assert "<image" in many
    assert len(many) < 300_000


def test_a_single_ringed_mark_stays_a_shape() -> None:
    assert "var(--ink)" in drawn(ink.DENSE, 1).split("<image")[1]
