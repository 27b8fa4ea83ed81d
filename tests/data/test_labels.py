"""Classes from labels: near twins, merging, dropping, and rare classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.data import DataConfig
from harness.data.sources.listing import Listing
from harness.data.sources.open_source import list_source
from harness.errors import ConfigError, DataError


def make(root: Path, counts: dict[str, int]) -> Path:
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            (root / label / f"{'x' * (number + 1)}.png").touch()
    return root


def listed(root: Path, **config: object) -> Listing:
    return list_source(DataConfig.model_validate({"source": {"folder": str(root)}, **config}), cache=root)


def counts(listing: Listing) -> dict[str, int]:
    return {label: sum(sample.label == label for sample in listing.samples) for label in listing.classes}


@pytest.mark.parametrize(
    "twins",
    [
        ("cat", "Cat"),
        ("cat", "CAT "),
        ("red cell", "red_cell"),
        ("red-cell", "Red cell"),
        ("naïve", "naive"),
        ("x²y", "x2y"),
    ],
)
def test_near_twins_are_refused_with_the_pair_and_the_way_out(tmp_path: Path, twins: tuple[str, str]) -> None:
    root = make(tmp_path / "d", dict.fromkeys([*twins, "dog"], 4))
    with pytest.raises(DataError, match=r"data\.classes: \{merge: \{") as error:
        listed(root)
    assert all(repr(name) in str(error.value) for name in twins) and "'dog'" not in str(error.value)
    joined = listed(root, classes={"merge": {"one": list(twins)}})
    assert counts(joined) == {"dog": 4, "one": 8}
    apart = listed(root, classes={"merge": {name: [name] for name in twins}})
    assert counts(apart) == dict.fromkeys(sorted(["dog", *twins]), 4)


@pytest.mark.parametrize(
    "labels", [("A", "a"), ("a", "ä"), ("CD4+", "CD4-"), ("CD4", "CD4-"), ("1-2", "12"), ("cat", "cats")]
)
def test_labels_that_differ_in_more_are_classes(tmp_path: Path, labels: tuple[str, str]) -> None:
    assert set(listed(make(tmp_path / "d", dict.fromkeys(labels, 4))).classes) == set(labels)


def test_twins_in_a_table_are_refused_too(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "t.csv").write_text("path,label\n0.png,wbc\n1.png,WBC\n2.png,rbc\n")
    with pytest.raises(DataError, match=r"merge: \{wbc: \[WBC, wbc\]\}(.|\n)*'WBC' and 'wbc'"):
        list_source(DataConfig.model_validate({"source": {"csv": str(tmp_path / "t.csv")}}), cache=tmp_path)


def test_labels_are_merged_renamed_and_dropped_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    root = make(tmp_path / "d", {"neutrophil": 3, "monocyte": 2, "debris": 5, "rbc": 4})
    listing = listed(root, classes={"merge": {"wbc": ["neutrophil", "monocyte"], "red": ["rbc"]}, "drop": ["debris"]})
    assert counts(listing) == {"red": 4, "wbc": 5}
    assert [(one.reason, one.label, one.count) for one in listing.left_aside] == [
        ("left out by data.classes.drop", "debris", 5)
    ]
    paths = [sample.path for sample in listing.samples]
    assert [str(listing.fetch(row)) for row in range(9)] == [str(root / path) for path in paths]


def test_unknown_labels_are_refused_with_near_names(tmp_path: Path) -> None:
    root = make(tmp_path / "d", {"neutrophil": 3, "monocyte": 2})
    with pytest.raises(
        ConfigError, match=r"monocyte, neutrophil(.|\n)*neutrophils; did you mean neutrophil\?"
    ) as error:
        listed(root, classes={"merge": {"wbc": ["neutrophils"]}, "drop": ["dust"]})
    assert "- dust" in str(error.value)


def test_rare_classes_are_left_out_and_said(tmp_path: Path) -> None:
    root = make(tmp_path / "d", {"a": 9, "b": 9, "rare": 4})
    listing = listed(root, min_images=5)
    assert counts(listing) == {"a": 9, "b": 9} and "Left out by data.min_images: 5: rare (4)." in listing.warnings
    (one,) = listing.left_aside
    assert (one.label, one.count, one.example) == ("rare", 4, "rare/x.png") and "data.min_images: 5" in one.reason
    assert counts(listed(root, min_images=4)) == {"a": 9, "b": 9, "rare": 4}
    assert counts(listed(root, min_images=5, classes={"merge": {"b": ["b", "rare"]}})) == {"a": 9, "b": 13}
    with pytest.raises(DataError, match=r"at least two classes must have data\.min_images: 10.*a with 9"):
        listed(root, min_images=10)
