"""The page's facts about the data, from the cards of this version and of earlier ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.analysis.study_data import StudyData
from harness.report.sections.data import card_facts

CARDS = sorted((Path(__file__).parents[2] / "reports" / "examples").glob("*/study/data_card.json"))


def facts_of(card: dict[str, Any]) -> dict[str, str]:
    return dict(card_facts(cast(StudyData, SimpleNamespace(card=card))))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parents[1].name)
def test_cards_of_studies_that_were_packed_earlier_are_shown(path: Path) -> None:
    card = json.loads(path.read_text())
    facts = facts_of({key: value for key, value in card.items() if key not in ("split_from", "frames", "value_range")})
    assert facts["full scale"] == "of the stored type" and "split" not in facts and "of several frames" not in facts


def test_split_frames_range_channels_and_what_is_left_aside_are_shown() -> None:
    aside = [{"reason": "thumbnail", "label": name, "count": 2, "example": f"{name}/x"} for name in "ab"]
    card = json.loads(CARDS[0].read_text()) | {
        "split_from": "column",
        "frames": "max",
        "bit_depth": "used",
        "value_range": [300.0, 40210.0],
        "channels": 5,
        "left_aside": aside,
    }
    facts = facts_of(card)
    assert facts["split"] == "from a column of the table"
    assert facts["of several frames"] == "the maximum of all"
    assert facts["full scale"] == "the training images' range: 300 is black and 40,210 is white"
    assert (facts["channels"], facts["left aside: thumbnail"]) == ("5 channels", "4")
    for nonsense in (None, [], ["a", "b"], 3):
        assert facts_of(card | {"value_range": nonsense})["full scale"] == "the training images' range"
