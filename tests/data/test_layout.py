"""What the levels of a data folder mean: recognised, given, or refused with the readings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.config.data import DataConfig
from harness.data.sources.listing import Listing
from harness.data.sources.open_source import list_source
from harness.errors import DataError


def make(root: Path, folders: Iterable[str], images: int = 4) -> Path:
    """Empty files with the names of images: a source is listed before any of them is read."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (root / folder / f"{folder.replace('/', '')}{'xyzuvw'[number % 6] * (number // 6 + 1)}.png").touch()
    return root


def listed(root: Path, **config: object) -> Listing:
    return list_source(DataConfig.model_validate({"source": {"folder": str(root)}, **config}), cache=root)


def read(listing: Listing) -> set[tuple[str, str, str]]:
    return {(sample.label, sample.group, sample.fixed_split) for sample in listing.samples}


@pytest.mark.parametrize(
    "parts",
    [
        {"seg_train": "train", "seg_test": "test"},
        {"training_set": "train", "test_set": "test"},
        {"Train": "train", "Testing": "test"},
        {"train_images": "train", "my-val": "validation", "trainAndMore": "train"},
        {"TrainSet": "train", "ValSet": "validation", "testset": "test"},
        {"train2017": "train", "val2017": "validation"},
        {"01_training": "train", "02_evaluation": "validation", "03_holdout": "test"},
    ],
    ids=lambda parts: "+".join(parts),
)
def test_parts_under_other_names_are_read_as_parts(tmp_path: Path, parts: dict[str, str]) -> None:
    make(tmp_path, [f"{part}/{label}" for part in parts for label in ("oak", "elm")])
    listing = listed(tmp_path)
    assert listing.classes == ("elm", "oak") and listing.split_from == "folders"
    assert {sample.path.split("/")[0]: sample.fixed_split for sample in listing.samples} == parts
    assert "Train" in parts or any("parts of the split" in line for line in listing.reading)


@pytest.mark.parametrize("labels", [("test_tube", "beaker"), ("test_positive", "test_negative"), ("test", "control")])
def test_classes_whose_names_have_a_part_s_word_stay_classes(tmp_path: Path, labels: tuple[str, ...]) -> None:
    listing = listed(make(tmp_path, labels))
    assert listing.classes == tuple(sorted(labels)) and listing.split_from == "drawn"


def test_parts_inside_a_folder_of_their_own_name_are_read(tmp_path: Path) -> None:
    make(tmp_path, [f"{part}/{part}/{label}" for part in ("seg_train", "seg_test") for label in ("ice", "sea")])
    listing = listed(tmp_path)
    assert listing.classes == ("ice", "sea") and {part for _, _, part in read(listing)} == {"train", "test"}


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train_images", "test_images"), ("Training", "Testing")])
def test_parts_that_hold_images_directly_are_refused(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        (tmp_path / part).mkdir()
        for number in range(6):
            (tmp_path / part / f"{('cat', 'dog')[number % 2]}.{number}.png").touch()
    (tmp_path / "labels.csv").touch()
    with pytest.raises(DataError) as error:
        listed(tmp_path)
    for word in (*parts, "hold images directly", "cat, dog", "DATA=", "labels.csv", "data.layout: class"):
        assert word in str(error.value)
    assert listed(tmp_path, layout="class").classes == tuple(sorted(parts))


def test_a_part_without_classes_beside_one_with_classes_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make(tmp_path, ["train/cat", "train/dog", "test"])
    with pytest.raises(DataError, match=r"test holds images directly(.|\n)*data.layout: train/class"):
        listed(tmp_path)
    listing = listed(tmp_path, layout="train/class")
    assert listing.classes == ("cat", "dog") and len(listing.samples) == 8
    assert any("The folder test with 4 images is left aside" in line for line in listing.warnings)


@pytest.mark.parametrize("test", ["test/unknown", "test/test", "test_set/images"])
def test_a_part_without_a_class_of_the_training_part_is_refused_with_the_way_out(tmp_path: Path, test: str) -> None:
    make(tmp_path, ["train/cat", "train/dog", test])
    with pytest.raises(
        DataError, match=r"same classes, but .*(unknown|test|images).*cat, dog(.|\n)*layout: train/class"
    ):
        listed(tmp_path)


def test_parts_whose_only_folder_is_of_images_have_no_classes(tmp_path: Path) -> None:
    make(tmp_path, [f"{part}/{kind}" for part in ("train", "test") for kind in ("images", "labels")])
    with pytest.raises(DataError, match=r"test/images, train/images hold images directly"):
        listed(tmp_path)


def test_the_readings_name_the_folders_around_the_parts(tmp_path: Path) -> None:
    make(tmp_path, ["set/train/cat", "set/train/dog", "set/test"])
    with pytest.raises(DataError, match=r"data\.layout: set/train/class "):
        listed(tmp_path)
    assert listed(tmp_path, layout="set/train/class").classes == ("cat", "dog")
    make(tmp_path, ["set/test/cat", "set/test/dog", "set/more"])
    with pytest.raises(DataError, match=r"data\.layout: set/split/class "):
        listed(tmp_path)
    assert listed(tmp_path, layout="set/split/class").split_from == "folders"


def test_other_folders_beside_parts_are_refused_or_left_aside_on_demand(tmp_path: Path) -> None:
    make(tmp_path, ["seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b", "seg_pred"])
    with pytest.raises(DataError, match=r"parts \(seg_test, seg_train\) and other folders.*seg_pred"):
        listed(tmp_path)
    listing = listed(tmp_path, layout="split/class")
    assert listing.classes == ("a", "b") and any("seg_pred" in line for line in listing.warnings)


@pytest.mark.parametrize(
    "folds",
    [
        ("fold1", "fold2", "fold3"),
        ("cv0", "cv1"),
        ("Fold-01", "Fold-02"),
        ("split-1", "split-2"),
        [f"fold_{n}" for n in range(1, 11)],
    ],
)
def test_folds_are_refused_with_every_reading(tmp_path: Path, folds: tuple[str, ...]) -> None:
    make(tmp_path, [f"{fold}/{label}" for fold in folds for label in ("forest", "sea")])
    with pytest.raises(DataError) as error:
        listed(tmp_path)
    for word in (
        *sorted(folds)[:2],
        "cross-validation",
        "forest, sea",
        "data.layout: '*/class'",
        "data.layout: group/class",
        "data.layout: class ",
    ):
        assert word in str(error.value)
    assert listed(tmp_path, layout="*/class").classes == ("forest", "sea")
    assert read(listed(tmp_path, layout="group/class")) == {(c, f, "") for c in ("forest", "sea") for f in folds}
    assert listed(tmp_path, layout="class").classes == tuple(sorted(folds))


def test_folds_that_hold_parts_are_refused(tmp_path: Path) -> None:
    make(tmp_path, [f"{fold}/{part}/{c}" for fold in ("fold1", "fold2") for part in ("train", "test") for c in "ab"])
    with pytest.raises(DataError, match=r"data.layout: fold1/split/class"):
        listed(tmp_path)
    listing = listed(tmp_path, layout="fold1/split/class")
    assert len(listing.samples) == 16 and listing.split_from == "folders"


@pytest.mark.parametrize(
    "patients",
    [
        [f"P{n:03d}" for n in range(8)],
        ["patient-3", "patient-7", "patient-9"],
        ["10253", "9346", "12811", "8863", "511"],
    ],
)
def test_patients_above_classes_are_groups(tmp_path: Path, patients: list[str]) -> None:
    make(tmp_path, [f"{p}/{label}" for n, p in enumerate(patients) for label in ("0", "1") if n != 1 or label == "0"])
    listing = listed(tmp_path)
    assert listing.classes == ("0", "1") and {group for _, group, _ in read(listing)} == set(patients)
    assert listing.group_rule == "folder" and any(patients[0] in line for line in listing.warnings)
    assert {group for _, group, _ in read(listed(tmp_path, split={"group": "^[0-9]"}))} == {""}  # the rule of the study


@pytest.mark.parametrize("inner", [("left", "right"), ("ctrl", "drug")])
def test_levels_that_may_mean_either_are_refused_with_the_readings(tmp_path: Path, inner: tuple[str, str]) -> None:
    make(tmp_path, [f"{top}/{one}" for top in ("hand", "foot", "knee") for one in inner])
    with pytest.raises(DataError) as error:
        listed(tmp_path)
    for word in ("foot, hand, knee", ", ".join(inner), "'*/class'", "group/class", "class/group"):
        assert word in str(error.value)


@pytest.mark.parametrize("names", ["D{}", "F{}", "{}"])
def test_a_few_numbered_folders_are_not_taken_for_patients(tmp_path: Path, names: str) -> None:
    make(tmp_path, [f"{names.format(n)}/{label}" for n in range(1, 7) for label in ("ill", "well")])
    with pytest.raises(DataError, match="several readings"):
        listed(tmp_path)


def test_digits_as_classes_are_not_taken_for_patients(tmp_path: Path) -> None:
    make(tmp_path, [f"{digit}/{hand}" for digit in range(10) for hand in ("left", "right")])
    with pytest.raises(DataError, match="several readings"):
        listed(tmp_path)


@pytest.mark.parametrize(
    "names", [["patient_{}", "patient_{}", "patient_{}"], ["A0{}", "B0{}", "C0{}"], ["slide{}", "slide1{}", "slide2{}"]]
)
def test_patients_below_classes_are_groups(tmp_path: Path, names: list[str]) -> None:
    inner = [name.format(n + 1) for n, name in enumerate(names)]
    make(tmp_path, [f"{label}/{one}" for label in ("benign", "tumour") for one in inner])
    listing = listed(tmp_path)
    assert read(listing) == {(label, one, "") for label in ("benign", "tumour") for one in inner}
    assert any("class" in line and "without groups" in line for line in listing.warnings)
    assert {group for _, group, _ in read(listed(tmp_path, layout="class"))} == {""}


@pytest.mark.parametrize(
    "labels", [("mouse_liver", "rat_liver"), ("case_positive", "case_negative"), ("slide", "well")]
)
def test_classes_whose_names_have_a_word_of_groups_stay_classes(tmp_path: Path, labels: tuple[str, str]) -> None:
    listing = listed(make(tmp_path, labels))
    assert listing.classes == tuple(sorted(labels)) and not listing.warnings


def test_patients_without_classes_are_warned_of(tmp_path: Path) -> None:
    assert any("look like patients" in line for line in listed(make(tmp_path, ["patient1", "patient2"])).warnings)


def test_too_few_patients_below_classes_are_no_groups_but_said(tmp_path: Path) -> None:
    listing = listed(make(tmp_path, ["a/plate1", "b/plate2", "a/plate3", "b/plate4"]))
    assert {group for _, group, _ in read(listing)} == {""}
    assert any("data.layout: 'class/group'" in line for line in listing.warnings)


@pytest.mark.parametrize("parts", [("train", "test"), ("training_set", "val_set", "test_set")])
def test_parts_below_classes_are_parts(tmp_path: Path, parts: tuple[str, ...]) -> None:
    listing = listed(make(tmp_path, [f"{label}/{part}" for label in ("rust", "scab") for part in parts]))
    assert listing.classes == ("rust", "scab") and listing.split_from == "folders"
    assert len({part for _, _, part in read(listing)}) == len(parts)


def test_folders_of_other_names_inside_classes_are_part_of_them_and_said(tmp_path: Path) -> None:
    listing = listed(make(tmp_path, ["mammal/cat", "mammal/dog", "bird/owl", "bird/tit"]))
    assert listing.classes == ("bird", "mammal") and any("'*/class'" in line for line in listing.warnings)
    assert listed(tmp_path, layout="*/class").classes == ("cat", "dog", "owl", "tit")


@pytest.mark.parametrize(
    "names", [("images", "masks"), ("img", "annotations"), ("raw", "segmentation"), ("Images", "Labels")]
)
@pytest.mark.parametrize("layout", ["{label}/{kind}", "{kind}/{label}"])
def test_masks_beside_images_are_left_aside_and_named(tmp_path: Path, names: tuple[str, str], layout: str) -> None:
    make(tmp_path, [layout.format(label=label, kind=kind) for label in ("a", "b") for kind in names])
    listing = listed(tmp_path)
    assert listing.classes == ("a", "b") and len(listing.samples) == 8
    assert all(names[0] in sample.path for sample in listing.samples)
    assert any("masks" in line and "8 files" in line for line in listing.warnings)


@pytest.mark.parametrize("mark", ["{}_mask", "{}_seg", "{}-label", "{}_mask_1", "{} mask"])
def test_mask_files_beside_their_images_are_left_aside(tmp_path: Path, mark: str) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for stem in (f"{label} (1)", f"{label}2"):
            (tmp_path / label / f"{stem}.png").touch()
            (tmp_path / label / f"{mark.format(stem)}.png").touch()
        (tmp_path / label / f"{label}_mask_alone.png").touch()
    listing = listed(tmp_path)
    assert len(listing.samples) == 6 and any("masks beside images: 4 files" in line for line in listing.warnings)


def test_mask_folders_inside_classes_beside_images_are_left_aside(tmp_path: Path) -> None:
    for label in "ab":
        make(tmp_path, [label])
        (tmp_path / label / "masks").mkdir()
        for file in list((tmp_path / label).glob("*.png")):
            (tmp_path / label / "masks" / file.name).touch()
    assert len(listed(tmp_path).samples) == 8


def test_faces_with_and_without_masks_are_classes(tmp_path: Path) -> None:
    assert listed(make(tmp_path, ["with_mask", "without_mask"])).classes == ("with_mask", "without_mask")
    assert listed(make(tmp_path / "d", ["mask", "no_mask"])).classes == ("mask", "no_mask")


def test_a_class_and_what_may_be_its_masks_are_refused(tmp_path: Path) -> None:
    make(tmp_path, ["cell", "dust", "cell_masks"])
    for file in list((tmp_path / "cell_masks").iterdir()):
        file.rename(file.with_name(file.name.replace("_masks", "")))
    with pytest.raises(DataError, match=r"cell and cell_masks(.|\n)*drop: \[cell_masks\]"):
        listed(tmp_path)
    assert listed(tmp_path, layout="class", classes={"drop": ["cell_masks"]}).classes == ("cell", "dust")


@pytest.mark.parametrize("name", ["images", "img", "photos"])
def test_images_with_a_table_beside_them_are_refused_with_the_table(tmp_path: Path, name: str) -> None:
    make(tmp_path, [name])
    (tmp_path / "metadata.csv").touch()
    with pytest.raises(DataError, match=rf"{name} holds 4 images directly.*DATA={tmp_path}/metadata.csv.*root: {name}"):
        listed(tmp_path)


def test_images_without_any_folder_are_refused_with_labels_in_their_names(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{'cat' if number % 2 else 'dog'}.{number}.jpg").touch()
    with pytest.raises(DataError, match=r"8 images directly.*file names begin with cat, dog"):
        listed(tmp_path)


@pytest.mark.parametrize("around", ["dataset", "data/images"])
def test_folders_around_the_classes_are_read_through_and_said(tmp_path: Path, around: str) -> None:
    make(tmp_path, [f"{around}/{label}" for label in ("a", "b")])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/about.txt").touch()
    (tmp_path / "README.md").touch()
    listing = listed(tmp_path)
    assert listing.classes == ("a", "b") and any(around.split("/")[0] in line for line in listing.notes)
    assert listed(make(tmp_path / "p", ["x/train/a", "x/train/b", "x/test/a", "x/test/b"])).split_from == "folders"


LEFTOVERS = [".thumbnails", "@eaDir", "Thumbs", "_cache", ".ipynb_checkpoints", "__pycache__", "previews", "lost+found"]


@pytest.mark.parametrize("name", [*LEFTOVERS, "$RECYCLE.BIN", "System Volume Information", ".Trash-1000", "#recycle"])
def test_folders_that_programs_leave_are_left_aside_by_kind(tmp_path: Path, name: str) -> None:
    make(tmp_path, ["a", "b", f"a/{name}", name, f"{name}/a"])
    listing = listed(tmp_path)
    assert listing.classes == ("a", "b") and len(listing.samples) == 8
    kinds = {one.reason for one in listing.left_aside}
    assert len(kinds) == 1 and sum(one.count for one in listing.left_aside) == 2
    parted = listed(make(tmp_path / "parts", ["train/a", "train/b", "test/a", "test/b", f"{name}/x"]))
    assert parted.split_from == "folders"


def test_a_class_that_is_called_like_a_finger_is_kept(tmp_path: Path) -> None:
    assert listed(make(tmp_path, ["thumb", "index"])).classes == ("index", "thumb")


@pytest.mark.parametrize("place", ["c", "train/c", "test"])
def test_a_class_or_part_that_is_a_link_is_refused_by_name(tmp_path: Path, place: str) -> None:
    make(tmp_path, ["store/x", *(["d/a", "d/b"] if place == "c" else ["d/train/a", "d/train/b"])])
    (tmp_path / "d" / place).symlink_to(tmp_path / "store/x")
    with pytest.raises(DataError, match=rf"links to folders are not followed(.|\n)*- {place} \(link out"):
        listed(tmp_path / "d")


def test_a_link_inside_a_class_is_counted_and_said(tmp_path: Path) -> None:
    make(tmp_path, ["d/a", "d/b", "store"])
    (tmp_path / "d/b/more").symlink_to(tmp_path / "store")
    listing = listed(tmp_path / "d")
    assert any("Class b" in line and "b/more" in line for line in listing.warnings) and len(listing.samples) == 8


@pytest.mark.parametrize("suffix", [".heic", ".jp2", ".dcm", ".czi", ""])
def test_a_class_of_another_format_is_refused_by_name_and_suffix(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, ["a", "b"])
    (tmp_path / "c").mkdir()
    for number in range(3):
        (tmp_path / f"c/{number}{suffix}").touch()
    with pytest.raises(DataError) as error:
        listed(tmp_path)
    assert f"c: 3 x not an image by its suffix ({suffix or 'none'}), such as c/0{suffix}" in str(error.value)
    assert listed(tmp_path, classes={"drop": ["c"]}).classes == ("a", "b")


def test_an_empty_folder_beside_classes_is_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, ["a", "b"])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"- c: no files"):
        listed(tmp_path)


def test_images_of_another_format_in_a_class_are_warned_of(tmp_path: Path) -> None:
    make(tmp_path, ["a", "b"])
    for number in range(7):
        (tmp_path / f"b/{number}.avif").touch()
        (tmp_path / f"a/{number}.txt").touch()
    (line,) = listed(tmp_path).warnings
    assert "Class b: 7 files" in line and ".avif" in line


def test_a_given_layout_is_followed_exactly(tmp_path: Path) -> None:
    make(tmp_path, ["a/images", "a/other", "b/images/deep", "b", "docs"])
    listing = listed(tmp_path, layout="class/images", classes={"drop": ["docs"]})
    assert {sample.path.rpartition("/")[0] for sample in listing.samples} == {"a/images", "b/images/deep"}
    reasons = {(one.label, one.reason): one.count for one in listing.left_aside}
    assert reasons["a", "folder that the layout leaves out"] == 1
    assert reasons["b", "image above the folders that the layout names"] == 4
    with pytest.raises(DataError, match=r"no images where data\.layout: nowhere/class looks"):
        listed(tmp_path, layout="nowhere/class")


@pytest.mark.parametrize("layout", ["", "split/group", "class/class", "class//group", "split/split/class", "../class"])
def test_a_layout_is_checked_with_the_study_file(layout: str) -> None:
    with pytest.raises(ValidationError, match=r"class, split, group, \* and names of folders"):
        DataConfig.model_validate({"layout": layout})


def test_groups_are_given_once() -> None:
    with pytest.raises(ValidationError, match="keep one of them"):
        DataConfig.model_validate({"layout": "group/class", "split": {"group": "x"}})
