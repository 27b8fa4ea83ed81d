"""What a figure with many marks weighs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes

from harness.report import style
from harness.report.style import drawing, picture


def drawn(marks: int, strategies: int) -> str:
    rng = np.random.default_rng(0)
    with drawing(400, 300) as (figure, axes):
        for _ in range(strategies):
            axes.scatter(rng.random(marks), rng.random(marks), s=40)
        axes.scatter([0.5], [0.5], s=190, facecolor="none", edgecolor=style.INK)
        return picture(figure, "dense", "many marks").svg


def test_marks_of_all_strategies_together_decide_whether_they_become_pixels() -> None:
    few, many = drawn(100, 2), drawn(style.DENSE * 2 // 3, 2)
    assert "<image" not in few
    assert "<image" in many
    assert len(many) < 300_000


def test_a_single_ringed_mark_stays_a_shape() -> None:
    assert "var(--ink)" in drawn(style.DENSE, 1).split("<image")[1]


def scatter(axes: Axes) -> None:
    rng = np.random.default_rng(0)
    axes.scatter(rng.random(50), rng.random(50), marker="D", alpha=0.5)
    axes.set(xscale="log", xlabel="rate", title="validation accuracy")


def pixels(axes: Axes) -> None:
    axes.scatter(*np.random.default_rng(0).random((2, 3000)), rasterized=True, **style.DUST)
    axes.set_title("many")


def matrix(axes: Axes) -> None:
    axes.set(xlim=(0, 3), ylim=(3, 0), aspect="equal")
    axes.set_xticks([0.5, 1.5], ["a long name", "another one"], rotation=45, ha="right", rotation_mode="anchor")


@pytest.mark.parametrize("draw", [scatter, pixels, matrix])
def test_a_figure_that_is_drawn_once_is_what_matplotlib_saves(draw: Callable[[Axes], None]) -> None:
    with drawing(360, 270) as (figure, axes):
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", dpi=style.PIXELS, metadata={"Date": None, "Creator": None})
        expected = style._inline(stream.getvalue(), "key", "said")
    with drawing(360, 270) as (figure, axes):
        draw(axes)
        assert picture(figure, "key", "said").svg == expected
