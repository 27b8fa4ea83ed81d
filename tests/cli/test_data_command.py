"""`harness data`: what a study would see of its images, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import as_tiff
from PIL import Image

Harness = Callable[..., tuple[int, str, str]]


def noise(path: Path, seed: int, size: tuple[int, int] = (24, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 15 images; those of one class are JPEG."""
    root = tmp_path / "images"
    for number in range(15):
        noise(root / "round" / f"{number:02d}.png", number)
        noise(root / "long" / f"{number:02d}.jpg", 100 + number)
    (root / "long" / "notes.txt").write_text("x")
    return root


def test_a_program_gets_every_fact(harness: Harness, images: Path) -> None:
    code, out, err = harness("data", str(images), "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["classes"] == {
        "long": {"train": 9, "validation": 3, "test": 3},
        "round": {"train": 9, "validation": 3, "test": 3},
    }
    assert (told["images"], told["groups"], told["split"]) == (30, 0, "drawn")
    assert told["kinds"] == {"8-bit RGB JPEG": 15, "8-bit RGB PNG": 15}
    [aside] = told["left_aside"]
    assert (aside["class"], aside["count"], aside["example"]) == ("long", 1, "long/notes.txt")
    assert any("JPEG" in warning and "100%" in warning for warning in told["warnings"])


def test_a_person_reads_classes_split_and_warnings(harness: Harness, images: Path) -> None:
    code, out, _ = harness("data", str(images))
    assert code == 0
    for words in ("round", "Validation", "drawn at random", "Left aside", "long/notes.txt", "Warning: The class"):
        assert words in out, words


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_the_sheet_shows_every_class(harness: Harness, images: Path, tmp_path: Path, suffix: str) -> None:
    sheet = tmp_path / f"sheet.{suffix}"
    code, out, _ = harness("data", str(images), "--sheet", str(sheet))
    assert code == 0 and sheet.name in out
    if suffix == "png":
        with Image.open(sheet) as picture:
            assert picture.format == "PNG" and picture.width > 500
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 100  # images, not an empty page
    else:
        page = sheet.read_text()
        assert page.count("<figure>") == 12 and page.count("<img") == 24
        assert "round/" in page and "http" not in page.replace("http-equiv", "")


def test_a_sheet_shows_the_very_pixels_beside_a_view_of_them(harness: Harness, tmp_path: Path) -> None:
    import base64
    import io
    import re

    root = tmp_path / "images"
    for number in range(12):
        noise(root / "ab"[number % 2] / f"{number}.png", number, (64, 64))
    sheet = tmp_path / "sheet.html"
    assert harness("data", str(root), "--sheet", str(sheet))[0] == 0
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"base64,([^']+)", sheet.read_text())
    ]
    first = np.asarray(Image.open(root / "a" / "0.png"))
    assert any(np.array_equal(first, picture) for picture in shown[::2])
    plain, view = shown[0], shown[1]
    assert any(  # the recipe of a study without a key of its own turns and mirrors
        np.array_equal(view, np.rot90(side, turns)) for side in (plain, plain[:, ::-1]) for turns in range(4)
    )


def test_near_duplicates_are_shown_as_pairs(harness: Harness, images: Path, tmp_path: Path) -> None:
    with Image.open(images / "round" / "03.png") as image:
        darker = (np.asarray(image) * 0.9).astype(np.uint8)
    Image.fromarray(darker).save(images / "round" / "again.png")
    sheet = tmp_path / "sheet.html"
    code, out, _ = harness("data", str(images), "--json", "--sheet", str(sheet))
    told = json.loads(out)
    assert code == 0 and told["near_pairs"] == 1
    assert any("round/03.png and round/again.png" in warning for warning in told["warnings"])
    assert "nearly the same" in sheet.read_text()


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Two classes of 12 ImageJ stacks of five channels, which use 12 of 16 bits."""
    root, rng = tmp_path / "five", np.random.default_rng(0)
    for number in range(24):
        path = root / "train" / "ab"[number % 2] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = rng.integers(0, 4096, (5, 24, 24)).astype(np.uint16)
        path.write_bytes(as_tiff(samples, imagej=True, metadata={"axes": "CYX"}))
    return root


def test_a_refusal_of_all_files_tells_its_reason_once_and_how_to_try_a_key(harness: Harness, five: Path) -> None:
    code, _, err = harness("data", str(five))
    assert code == 3 and err.count("has 5 channels") == 1 and len(err) < 700
    assert "24 of 24 images cannot be read with the keys as they are" in err and "on_bad" not in err
    assert "train/a/00.tif, train/a/02.tif, train/a/04.tif and 21 more: has 5 channels" in err
    assert "add --set KEY=VALUE, such as --set channels=all" in err


def test_keys_are_tried_without_a_study_file(harness: Harness, five: Path) -> None:
    keys = ("channels=all", "data.bit_depth=12", "layout=split/class", "split.test=0.25", "dedupe.near=keep")
    code, out, _ = harness("data", str(five), "--json", *(word for key in keys for word in ("--set", key)))
    told = json.loads(out)
    assert code == 0 and told["kinds"] == {"16-bit 5-channel TIFF": 24}
    assert sum(parts["test"] for parts in told["classes"].values()) == 6
    assert not told["warnings"]  # without bit_depth: 12, the images were nearly black
    code, out, _ = harness("data", "microscopy", "--data", str(five), "--set", "channels=[4, 0, 1]", "--json")
    assert code == 0 and json.loads(out)["images"] == 24


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("chanels=all", "data.chanels: unknown key"),
        ("channels", "must be KEY=VALUE"),
        ("channels=", "must be KEY=VALUE"),
        ("channels=[1, 2", "is not valid YAML"),
        ("channels=[1, 2]", "must name three channels"),
        ("source.folder=x", "must not name data.source"),
        ("frames.each=1", "data.frames"),
    ],
)
def test_a_key_that_cannot_be_set_is_named(harness: Harness, images: Path, key: str, message: str) -> None:
    code, _, err = harness("data", str(images), "--set", key)
    assert (code, message in " ".join(err.split())) == (2, True), err


def test_a_key_below_a_value_is_refused_and_not_lost(harness: Harness, images: Path) -> None:
    code, _, err = harness("data", str(images), "--set", "dedupe=train", "--set", "dedupe.near=keep")
    assert code == 2 and "data.dedupe.near cannot be set" in err


def test_a_study_is_shown_by_its_name_and_with_other_data(harness: Harness, images: Path) -> None:
    code, out, _ = harness("data", "microscopy", "--data", str(images), "--json")
    told = json.loads(out)
    assert code == 0 and told["images"] == 30
    assert sum(parts["test"] for parts in told["classes"].values()) > 6  # the study's own share is 0.3, not 0.2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("data", "microscop"), 2, "Did you mean microscopy"),
        (("data", "no/such/folder"), 3, "no/such/folder"),
        (("data", "blood-cells"), 3, "Chula RBC-12"),
        (("data", "microscopy", "--sheet", "sheet.gif"), 2, "ends in .png or .html"),
        (("data", "microscopy", "--sheet", "no/such/folder/sheet.png"), 2, "no/such/folder"),
    ],
)
def test_what_cannot_be_shown_has_a_studys_exit_code(
    harness: Harness, words: tuple[str, ...], code: int, message: str
) -> None:
    ended, _, err = harness(*words)
    assert ended == code and message in err and err.count("\n") <= 3


def test_images_that_make_no_study_are_refused_as_the_study_refuses_them(harness: Harness, tmp_path: Path) -> None:
    noise(tmp_path / "few" / "a" / "1.png", 0)
    noise(tmp_path / "few" / "b" / "1.png", 1)
    code, _, err = harness("data", str(tmp_path / "few"))
    again, _, study_err = harness("study", "microscopy", "--data", str(tmp_path / "few"))
    assert code == again == 3
    assert err == f"{study_err}To try a key here, add --set KEY=VALUE, such as --set channels=all.\n"


def test_the_rendered_cells_give_no_reason_for_a_warning(harness: Harness) -> None:
    code, out, _ = harness("data", "microscopy", "--json")
    told = json.loads(out)
    assert code == 0 and told["images"] == 1440 and told["groups"] == 120
    assert told["warnings"] == [] and told["near_pairs"] == 0


def test_images_that_a_limit_leaves_out_are_told(harness: Harness, images: Path) -> None:
    code, out, _ = harness("data", str(images), "--set", "limit=16", "--json")
    told = json.loads(out)
    assert code == 0 and told["unused"] == 8 and told["images"] == 30
    assert sum(sum(parts.values()) for parts in told["classes"].values()) == 22
