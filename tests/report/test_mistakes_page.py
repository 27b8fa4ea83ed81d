"""The surest mistakes on the page: from the stored file, or not at all."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.analysis.study_data import StudyData
from harness.data.composite import caption
from harness.report.sections.mistakes import heading, mistakes_section
from harness.results.paths import StudyFolder
from tests.stored_study import HOSTILE, MakeStudy


def store(folder: StudyFolder, **changed: Any) -> StudyData:
    """Three mistakes of the recommended winner: two of class 2 taken for 5, one of class 0 taken for 1."""
    images = np.stack([np.full((48, 48, 3), shade, np.uint8) for shade in (40, 120, 200)])
    arrays: dict[str, Any] = {
        "images": images,
        "labels": np.array([2, 0, 2]),
        "predicted": np.array([5, 1, 5]),
        "probability": np.array([0.9991, 0.942, 0.71]),
        "probability_true": np.array([0.0, 0.03, 0.2]),
        "seeds_wrong": np.array([3, 3, 2]),
        "rows": np.array([5, 15, 40]),
        "seeds": 3,
        "strategy": "fine_tuning",
    }
    np.savez(folder.mistakes, **(arrays | changed))
    return StudyData.read(folder)


def test_composites_are_said_to_be_composites(make_study: MakeStudy) -> None:
    plain, five = (
        mistakes_section(store(make_study(f"of{channels}", card={"channels": channels}))) for channels in (3, 5)
    )
    assert plain is not None and five is not None
    assert five.note == f"{plain.note} {caption(5)}"


def test_every_stored_mistake_is_shown_with_what_it_was_taken_for(make_study: MakeStudy) -> None:
    data = store(make_study())
    assert data.summary["recommendation"]["strategy"] == "fine_tuning"
    section = mistakes_section(data)
    assert section is not None
    assert section.heading == f"The surest mistakes: {HOSTILE[2]} taken for {HOSTILE[5]}, 2 of the 3"
    assert [shot.lines for shot in section.images] == [
        ["interphase, taken for anaphase", "over 99 % sure, wrong in 3 of 3 seeds"],
        ["<script>alert(1)</script>, taken for $x^2$", "94 % sure, wrong in 3 of 3 seeds"],
        ["interphase, taken for anaphase", "71 % sure, wrong in 2 of 3 seeds"],
    ]
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(shot.address.partition(",")[2])))) for shot in section.images
    ]
    assert [round(float(image.mean())) for image in pixels] == pytest.approx([40, 120, 200], abs=3)
    assert "Fine-tuning, the recommended winner" in section.note


def test_nothing_is_shown_without_the_file(make_study: MakeStudy) -> None:
    assert mistakes_section(StudyData.read(make_study())) is None


def test_nothing_is_shown_where_images_stay_off_the_page(make_study: MakeStudy) -> None:
    data = store(make_study(study={"report": {"images": False}}))
    assert mistakes_section(data) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"predicted": np.array([6, 1, 5])},
        {"labels": np.array([-1, 0, 2])},
        {"labels": np.array([2, 0])},
        {"images": np.zeros((3, 48, 48), np.uint8)},
        {"images": np.zeros((3, 48, 48, 3), np.float32)},
        {"strategy": "feature_extraction"},
    ],
    ids=["a seventh class", "no class", "a label missing", "no colours", "no bytes", "another winner"],
)
def test_a_file_that_does_not_fit_is_left_out(make_study: MakeStudy, changed: dict[str, Any]) -> None:
    assert mistakes_section(store(make_study(), **changed)) is None


def test_a_damaged_file_is_left_out(make_study: MakeStudy) -> None:
    folder = make_study()
    data = store(folder)
    whole = folder.mistakes.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive"):
        folder.mistakes.write_bytes(damaged)
        assert mistakes_section(data) is None


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (["ab"], "The surest mistake: a taken for b"),
        (["ab", "ab", "ba"], "The surest mistakes: a taken for b, 2 of the 3"),
        (["ab", "ca", "ab", "ca", "ba"], "The surest mistakes: a taken for b and c taken for a, 2 each of the 5"),
        (["ab", "ba", "ca"], "The 3 surest mistakes are of 3 kinds"),
        (["ab", "ab", "ba", "ba", "ca", "ca"], "The 6 surest mistakes are of 3 kinds"),
    ],
)
def test_the_heading_names_the_commonest_kind(pairs: list[str], told: str) -> None:
    assert heading([(pair[0], pair[1]) for pair in pairs]) == told
