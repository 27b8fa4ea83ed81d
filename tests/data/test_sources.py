from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.data import DataConfig
from harness.data.sources.listing import Listing
from harness.data.sources.open_source import list_source
from harness.errors import ConfigError, DataError


def by_reason(listing: Listing) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one in listing.left_aside:
        counts[one.reason] += one.count
    return dict(counts)


def folder(root: Path, cache: Path) -> Listing:
    return list_source(DataConfig.model_validate({"source": {"folder": str(root)}}), cache=cache)


def table(path: Path, cache: Path, group: str | None = None) -> Listing:
    config = {"source": {"csv": str(path)}, "split": {"group": group}}
    return list_source(DataConfig.model_validate(config), cache=cache)


def test_classes_and_images_are_sorted_by_bytes(tmp_path: Path, cache: Path, write_image: Callable[..., Path]) -> None:
    for name in ("b/2.png", "b/10.png", "Z/1.png", "a/1.png", "ä/1.png"):
        write_image(tmp_path / "d" / name)
    listing = folder(tmp_path / "d", cache)
    assert listing.classes == ("Z", "a", "b", "ä")
    assert [s.path for s in listing.samples] == ["Z/1.png", "a/1.png", "b/10.png", "b/2.png", "ä/1.png"]
    assert listing.name == "d" and listing.source == "folder d"


def test_images_in_folders_inside_a_class_belong_to_it(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "d/a/plate1/well2/x.png")
    write_image(tmp_path / "d/b/y.png")
    assert [(s.path, s.label) for s in folder(tmp_path / "d", cache).samples] == [
        ("a/plate1/well2/x.png", "a"),
        ("b/y.png", "b"),
    ]


@pytest.mark.parametrize("validation", ["val", "Validation", "valid"])
def test_train_val_and_test_folders_fix_the_parts(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path], validation: str
) -> None:
    for part in ("train", validation, "test"):
        write_image(tmp_path / "d" / part / "a/1.png")
        write_image(tmp_path / "d" / part / "b/1.png")
    listing = folder(tmp_path / "d", cache)
    assert listing.classes == ("a", "b")
    assert {s.path.split("/")[0]: s.fixed_split for s in listing.samples} == {
        "train": "train",
        validation: "validation",
        "test": "test",
    }


def test_a_class_may_be_called_test(tmp_path: Path, cache: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "d/test/1.png")
    write_image(tmp_path / "d/control/1.png")
    listing = folder(tmp_path / "d", cache)
    assert listing.classes == ("control", "test") and {s.fixed_split for s in listing.samples} == {""}


def test_parts_and_classes_side_by_side_are_refused(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "d/train/a/1.png")
    write_image(tmp_path / "d/extra/1.png")
    with pytest.raises(DataError, match=r"train.*extra"):
        folder(tmp_path / "d", cache)


def test_what_is_no_image_is_left_aside_and_counted_by_reason(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    root = tmp_path / "d"
    for name in ("a/1.png", "b/1.PNG", ".ipynb_checkpoints/1.png", "__MACOSX/1.png", "a/.hidden/1.png", "stray.png"):
        write_image(root / name)
    for name in ("a/Thumbs.db", "a/.DS_Store", "a/._1.png", "a/notes.txt", "b/data.csv", "readme.md"):
        (root / name).write_bytes(b"x")
    listing = folder(root, cache)
    assert [s.path for s in listing.samples] == ["a/1.png", "b/1.PNG"]
    assert listing.classes == ("a", "b")
    assert by_reason(listing) == {
        "folder of notebook checkpoints": 1,
        "folder of the operating system": 1,
        "hidden folder": 1,
        "hidden or system file": 3,
        "not an image by its suffix (.txt)": 1,
        "not an image by its suffix (.csv)": 1,
        "not an image by its suffix (.md)": 1,
        "image outside a class folder": 1,
    }


def test_links_out_of_the_folder_and_cycles_are_left_aside_and_counted(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    root = tmp_path / "d"
    outside = write_image(tmp_path / "secret/1.png")
    write_image(root / "a/1.png")
    write_image(root / "b/1.png", seed=1)
    (root / "a/out.png").symlink_to(outside)
    (root / "a/inside.png").symlink_to(root / "b/1.png")
    (root / "a/gone.png").symlink_to(root / "nowhere.png")
    (root / "a/up").symlink_to(root)
    (root / "b/self").symlink_to(root / "b")
    (root / "b/out").symlink_to(tmp_path / "secret")
    (root / "b/other").symlink_to(root / "a")
    listing = folder(root, cache)
    assert [s.path for s in listing.samples] == ["a/1.png", "a/inside.png", "b/1.png"]
    assert listing.classes == ("a", "b")
    assert by_reason(listing) == {
        "link out of the data folder": 2,
        "link that leads nowhere": 1,
        "link cycle": 2,
        "link to a folder that is read under its own name": 1,
    }


def test_names_that_are_no_utf8_are_shown_escaped_and_still_opened(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "d/a/1.png")
    good = write_image(tmp_path / "d/b/1.png").read_bytes()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "d/b") + b"/caf\xe9.png")).write_bytes(good)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = folder(tmp_path / "d", cache)
    row = [s.path for s in listing.samples].index("b/caf\\xe9.png")
    source = listing.fetch(row)
    assert isinstance(source, Path) and source.read_bytes() == good


def test_names_that_differ_only_in_their_encoding_are_refused(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "d/b/1.png")
    for form in ("NFC", "NFD"):
        write_image(tmp_path / "d" / unicodedata.normalize(form, "ä") / f"{form}.png")  # type: ignore[arg-type]
    if len(list((tmp_path / "d").iterdir())) < 3:
        pytest.skip("this file system joins the two names itself")
    with pytest.raises(DataError, match="encoded"):
        folder(tmp_path / "d", cache)


def test_labels_of_a_table_that_differ_only_in_their_encoding_are_refused(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    path = tmp_path / "cells.csv"
    rows = [unicodedata.normalize(form, "ä") for form in ("NFC", "NFC", "NFD")]  # type: ignore[arg-type]
    for number in range(3):
        write_image(tmp_path / f"{number}.png")
    path.write_text("path,label\n" + "".join(f"{n}.png,{label}\n" for n, label in enumerate(rows)), "utf-8")
    with pytest.raises(DataError, match="line 4: the label ä is encoded differently"):
        table(path, cache)


def test_a_missing_or_empty_folder_says_what_it_must_hold(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; it must hold one folder of images for each class"):
        folder(tmp_path / "nowhere", cache)
    (tmp_path / "d/a").mkdir(parents=True)
    (tmp_path / "d/a/x.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no images.*1 x not an image by its suffix"):
        folder(tmp_path / "d", cache)


def test_a_study_without_data_says_what_it_wants(cache: Path) -> None:
    with pytest.raises(ConfigError, match="a folder of crops"):
        list_source(DataConfig(source=None, wanted="give a folder of crops"), cache=cache)


def test_a_table_gives_labels_parts_and_groups(tmp_path: Path, cache: Path, write_image: Callable[..., Path]) -> None:
    for name in "xyz":
        write_image(tmp_path / f"images/{name}.png")
    path = tmp_path / "cells.csv"
    path.write_text(
        "\ufeffpath,label,split,patient\nimages/z.png,a,val,p1\nimages/x.png,b,,p2\nimages/y.png,a,test,p3\n", "utf-8"
    )
    listing = table(path, cache, "patient")
    assert [(s.path, s.label, s.fixed_split, s.group) for s in listing.samples] == [
        ("images/x.png", "b", "", "p2"),
        ("images/y.png", "a", "test", "p3"),
        ("images/z.png", "a", "validation", "p1"),
    ]
    assert (listing.name, listing.classes, listing.group_rule) == ("cells", ("a", "b"), "column patient")


def test_a_column_named_group_is_the_group_unless_another_is_named(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "x.png")
    (tmp_path / "t.csv").write_text("path,label,group\nx.png,a,7\n")
    assert table(tmp_path / "t.csv", cache).samples[0].group == "7"


def test_all_faults_of_a_table_are_named_together_by_line(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "x.png")
    (tmp_path / "t.csv").write_text("path,label,split\nx.png,a,train\ngone.png,a,\nx.png,b,sometimes\nx.png,,\n")
    with pytest.raises(DataError) as error:
        table(tmp_path / "t.csv", cache)
    for fault in (
        "line 3: gone.png does not exist",
        "line 4: x.png is listed twice",
        "'sometimes'",
        "line 5: label is empty",
    ):
        assert fault in str(error.value)


def test_a_table_without_its_columns_or_in_another_encoding_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "t.csv").write_text("thing,label\nx.png,a\n")
    with pytest.raises(DataError, match=r"path is missing; it has thing, label.*\{path: COLUMN\}"):
        table(tmp_path / "t.csv", cache)
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="UTF-8"):
        table(tmp_path / "t.csv", cache)
    with pytest.raises(DataError, match="does not exist"):
        table(tmp_path / "none.csv", cache)


ODD_TABLES = {
    "a NUL": (b"path,label\nx\0.png,a\n", "line 2 has a NUL character"),
    "utf-16": ("path,label\nx.png,a\n".encode("utf-16-le"), "NUL character"),
    "latin-1": ("path,label\nx.png,für\n".encode("latin-1"), "byte 0xfc.*save it as UTF-8"),
    "a quotation mark that is never closed": (b'path,label\nx.png,"a\ny.png,b\n', "a quotation mark may be missing"),
    "a quotation mark that is not doubled": (b'path,label\nx.png,"a"b"\n', "may not be doubled"),
    "one column": (b"path\nx.png\n", "separated by commas"),
    "no header": (b"x.png,a\ny.png,b\n", "first line of the table t.csv must name its columns"),
    "a spreadsheet": (b"PK\x03\x04 and more", "save it as CSV"),
    "too many values": (b"path,label\nx.png,a,left\n", "line 2: it has 3 values for 2 columns"),
    "too few values": (b"path,label\nx.png\n", "line 2: label is empty"),
    "a column twice": (b"path,label, path\nx.png,a,y.png\n", "must name each column once"),
    "nothing": (b"", "it is empty"),
    "blank lines": (b"\n\n , \n", "it is empty"),
    "a path of 300 characters": (b"path,label\n" + b"x" * 300 + b".png,a\n", "cannot be opened \\(File name too long"),
    "a path of 5,000 characters": (b"path,label\n" + b"x/" * 2500 + b",a\n", "path has more than 4096 characters"),
    "a label of 100 kB": (b"path,label\nx.png," + b"a" * 100_000 + b"\n", "label has more than 200 characters"),
    "a cell of 1 MB": (b"path,label\nx.png," + b"a" * 1_000_000 + b"\n", "cannot be read as CSV, line 2: field larger"),
    "a group of 1,000 characters": (b"path,label,group\nx.png,a," + b"g" * 1000 + b"\n", "group has more than 200"),
}


@pytest.mark.parametrize(("content", "told"), ODD_TABLES.values(), ids=ODD_TABLES)
def test_an_odd_table_ends_with_one_short_message(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path], content: bytes, told: str
) -> None:
    write_image(tmp_path / "x.png")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=told) as error:
        table(tmp_path / "t.csv", cache)
    assert len(str(error.value)) < 1500


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path, cache: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "x.png")
    write_image(tmp_path / "a, b.png")
    text = '\ufeffpath,label,,\r\nx.png,a,,\r\n"a, b.png"," b",,\r\n,,,\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8"))
    assert [(s.path, s.label) for s in table(tmp_path / "t.csv", cache).samples] == [("a, b.png", "b"), ("x.png", "a")]


def test_faults_of_a_table_have_the_lines_of_the_file(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "t.csv").write_text('path,label,note\nx.png,a,"of two\nlines"\n\ngone.png,b,\n')
    with pytest.raises(DataError, match=r"line 5: gone\.png does not exist"):
        table(tmp_path / "t.csv", cache)


def test_a_table_of_very_many_missing_files_names_the_first_of_them(tmp_path: Path, cache: Path) -> None:
    lines = "".join(f"images/{number}.png,{number % 3}\n" for number in range(20_000))
    (tmp_path / "t.csv").write_text("path,label\n" + lines)
    with pytest.raises(DataError, match="has 20000 faults") as error:
        table(tmp_path / "t.csv", cache)
    assert len(str(error.value)) < 2000
