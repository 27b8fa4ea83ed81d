"""Groups from file names and paths, and the suggestion of a rule if names carry an evident group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.data import DataConfig
from harness.data.groups import groups_of, suggestion
from harness.data.sources.listing import Listing, Sample
from harness.errors import DataError


def listing_of(paths: list[str], label: str = "") -> Listing:
    samples = tuple(Sample(path, label or path.split("/")[0]) for path in sorted(paths))
    return Listing("d", "folder d", samples, lambda index: Path(samples[index].path))


def grouped(paths: list[str], rule: str) -> list[str]:
    listing = listing_of(paths)
    return groups_of(listing, range(len(paths)), rule)[0]


def test_a_rule_with_a_slash_is_matched_with_the_path_and_others_with_the_file_name() -> None:
    paths = ["a/p1/x_s1.png", "a/p2/x_s2.png", "b/p1/y_s3.png"]
    assert grouped(paths, "^[^/]+/([^/]+)/") == ["p1", "p2", "p1"]
    assert grouped(paths, r"s\d") == ["s1", "s2", "s3"]
    assert grouped(paths, r"^x(?:_s1)?|^y") == ["x_s1", "x", "y"]  # ^ is the start of the file name
    with pytest.raises(
        DataError, match=r"every path below the data folder, but it matches 2 of 3(.|\n)*b/p1/y_s3\.png"
    ):
        grouped(paths, "^a/([^/]+)/")
    with pytest.raises(DataError, match=r"every file name, but it matches 1 of 3"):
        grouped(paths, "s1")


def hint(paths: list[str]) -> str | None:
    return suggestion(listing_of(paths).samples)


NAMES = {
    "slide": ("slide{g}_{n}.png", "slide7"),
    "patient": ("img{n}-patient-{g}.png", "patient-7"),
    "code": ("P{g:03d}_{n}.png", "P007"),
    "well": ("field{n} well B{g:02d}.tif", "well B07"),
    "well without a word": ("x{n}_B{g:02d}_c.tif", "B07"),
    "plate": ("{n}_Plate{g}.png", "Plate7"),
    "mouse": ("Mouse {g} day 3 ({n}).jpg", "Mouse 7"),
    "number": ("{g}0253_idx5_x{n}.png", "70253"),
}


@pytest.mark.parametrize(("name", "group"), NAMES.values(), ids=NAMES)
def test_an_evident_group_in_file_names_is_suggested_with_the_rule_that_gives_it(name: str, group: str) -> None:
    paths = [f"{'ab'[n % 2]}/" + name.format(g=g, n=n) for g in range(4, 9) for n in range(6)]
    told = hint(paths)
    assert told is not None and "5 groups in 30 images" in told
    rule = re.search(r"data\.split\.group: '(.*)'$", told)
    assert rule is not None and DataConfig.model_validate({"split": {"group": rule[1]}})
    assert group in grouped(paths, rule[1]) and len(set(grouped(paths, rule[1]))) == 5


def test_an_evident_group_in_folders_is_suggested() -> None:
    told = hint([f"{label}/slide_{g}/{letter}.png" for label in "ab" for g in range(4) for letter in "xyz"])
    assert told is not None and told.endswith("data.split.group: '^[^/]+/([^/]+)/'") and "folders carry" in told
    told = hint([f"{label}/x/slide_{g}/{letter}.png" for label in "ab" for g in range(4) for letter in "xyz"])
    assert told is not None and told.endswith("'^[^/]+/[^/]+/([^/]+)/'")


def test_the_suggested_rule_is_simple_if_a_simple_one_gives_the_same_groups() -> None:
    told = hint([f"{'ab'[n % 2]}/slide{n % 5}_{n}.png" for n in range(40)])
    assert told is not None and told.endswith("data.split.group: 'slide[0-9]+'")
    told = hint([f"{'ab'[n % 2]}/P{n % 5:03d}_A12_{n}.png" for n in range(40)])
    assert told is not None and told.endswith("data.split.group: 'P[0-9]+'")


@pytest.mark.parametrize(
    "paths",
    [
        [f"{'ab'[n % 2]}/{n}.png" for n in range(40)],
        [f"{'ab'[n % 2]}/img_{n:04d}.png" for n in range(40)],
        [f"{'ab'[n % 2]}/slide{n}.png" for n in range(40)],  # one image each
        [f"{'ab'[n % 2]}/slide{n % 2}_{n}.png" for n in range(40)],  # two groups
        [f"{'ab'[n % 2]}/slide{max(n - 25, 0)}_{n}.png" for n in range(40)],  # nearly all have one image
        [*(f"{'ab'[n % 2]}/slide{n % 5}_{n}.png" for n in range(40)), "a/other.png"],  # not all
        [f"case{n % 4}/case{n % 4}_{n}.png" for n in range(40)],  # the groups are the classes
    ],
    ids=["numbers", "camera", "one image each", "two groups", "one large group", "not all", "classes"],
)
def test_nothing_is_suggested_that_is_not_evident(paths: list[str]) -> None:
    assert hint(paths) is None


def test_groups_in_several_given_parts_are_said() -> None:
    samples = [
        Sample(f"{part}/a/slide{g}_{n}.png", "ab"[n % 2], fixed_split=part)
        for part in ("train", "test")
        for g in range(4)
        for n in range(4)
    ]
    told = suggestion(samples)
    assert told is not None and "4 of them are in several parts" in told


def test_nothing_is_suggested_if_groups_are_known() -> None:
    assert suggestion([Sample(f"a/slide{n // 4}_{n}.png", "a", group="g") for n in range(40)]) is None
