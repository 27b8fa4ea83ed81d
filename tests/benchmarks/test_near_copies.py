from __future__ import annotations

import numpy as np
import pytest

from harness.benchmarks import near_copies
from harness.data.sources import rendered_cells


def test_recall_and_false_pairs_are_counted_for_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "COPIES", 5)
    monkeypatch.setattr(
        near_copies, "CHANGES", {"grey": near_copies.CHANGES["grey"], "noise": lambda picture, random: noise}
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = near_copies.measure(list(rendered_cells.render(0, slides=2).images))
    assert [(row["change"], row["copies"], row["recall"]) for row in found["changes"]] == [
        ("grey", 5, 1.0),
        ("noise", 5, 0.0),
    ]
    assert found["changes"][0]["false_pairs"] == 0
    assert found["changes"][1]["false_pairs"] > 0  # the five noise images are copies of each other
