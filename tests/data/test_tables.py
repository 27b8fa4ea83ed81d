"""Tables as spreadsheets, pandas and other machines write them: read if there is one reading, which is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config.data import DataConfig
from harness.config.load import Overrides, load_study
from harness.data.dataset import open_dataset
from harness.data.sources.listing import Listing
from harness.data.sources.open_source import list_source
from harness.errors import DataError


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> Path:
    """Empty files 0.png to 7.png, and the same in images/: a table is listed before any of them is read."""
    (tmp_path / "images").mkdir()
    for number in range(8):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"images/c{number}.png").touch()
    return tmp_path


def listed(place: Path, text: str | bytes, name: str = "t.csv", **config: object) -> Listing:
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return list_source(DataConfig.model_validate({"source": {"csv": str(place / name)}, **config}), cache=place)


def pairs(listing: Listing) -> list[tuple[str, str]]:
    return [(sample.path, sample.label) for sample in listing.samples]


WANTED = [("0.png", "a"), ("1.png", "b")]


@pytest.mark.parametrize(("separator", "said"), [(";", "; (semicolon)"), ("\t", "(tab)"), ("|", "| (vertical bar)")])
def test_another_separator_is_read_and_said(tmp_path: Path, separator: str, said: str) -> None:
    lines = ["path,label,note", '0.png,a,"1;5, or\t2|3"', "1.png,b,x"]
    text = "\n".join(lines[:1] + lines[2:] + ["0.png,a,y"]).replace(",", separator)
    listing = listed(tmp_path, text)
    assert pairs(listing) == WANTED and any(said in line for line in listing.warnings)
    plain = listed(tmp_path, "\n".join(lines))
    assert pairs(plain) == WANTED and not plain.warnings


def test_the_separator_that_a_spreadsheet_writes_into_the_first_line_is_used(tmp_path: Path) -> None:
    assert pairs(listed(tmp_path, "sep=;\npath;label\n0.png;a\n1.png;b\n")) == WANTED
    with pytest.raises(DataError, match=r"line 4: x\.png does not"):
        listed(tmp_path, "sep=;\npath;label\n0.png;a\nx.png;b\n")


def test_a_comma_in_a_number_is_no_separator(tmp_path: Path) -> None:
    assert pairs(listed(tmp_path, "path;label;size\n0.png;a;1,5\n1.png;b;2,5\n")) == WANTED


def test_two_possible_separators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="separated by comma or semicolon"):
        listed(tmp_path, "path,label,file;id;class;z\n0.png,a,x;0.png;a;x\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_byte_order_marks_are_understood(tmp_path: Path, encoding: str) -> None:
    text = "path,label\r\n0.png,für\r\n1.png,b\r\n".encode(encoding)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    assert pairs(listed(tmp_path, mark + text)) == [("0.png", "für"), ("1.png", "b")]


@pytest.mark.parametrize(
    "paths",
    [
        (".\\0.png", "1.png"),
        ("C:\\Users\\me\\data\\0.png", "C:\\Users\\me\\data\\1.png"),
        ("/home/someone/data/0.png", "/home/someone/data/1.png"),
        ("data/0.png", "data/1.png"),
        ("\\\\server\\share\\0.png", "\\\\server\\share\\1.png"),
        ("0", "1"),
        ("0.PNG", "1.Png"),
    ],
    ids=repr,
)
def test_paths_of_other_machines_and_ids_lead_to_the_files_and_this_is_said(
    tmp_path: Path, paths: tuple[str, str]
) -> None:
    listing = listed(tmp_path, f"path,label\n{paths[0]},a\n{paths[1]},b\n")
    assert pairs(listing) == WANTED
    assert [str(listing.fetch(row)) for row in (0, 1)] == [str(tmp_path / f"{n}.png") for n in (0, 1)]
    assert listing.reading and set(listing.reading) <= set(listing.warnings)


def test_files_in_the_only_folder_that_has_them_are_found_and_this_is_said(tmp_path: Path) -> None:
    listing = listed(tmp_path, "id,label\nc0,a\nc1,b\n")
    assert pairs(listing) == [("images/c0.png", "a"), ("images/c1.png", "b")]
    assert any("the folder images" in line for line in listing.warnings)
    (tmp_path / "copies").mkdir()
    for number in range(2):
        (tmp_path / f"copies/c{number}.png").touch()
    with pytest.raises(
        DataError, match=r"line 2: c0 does not exist(.|\n)*several folders \(copies, images\).*data.root"
    ):
        listed(tmp_path, "id,label\nc0,a\nc1,b\n")
    assert pairs(listed(tmp_path, "id,label\nc0,a\nc1,b\n", root="images")) == [("c0.png", "a"), ("c1.png", "b")]


def test_an_id_of_two_files_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").touch()
    with pytest.raises(DataError, match=r"line 2: 0 may be 0\.jpg, 0\.png; write the suffix"):
        listed(tmp_path, "id,label\n0,a\n1,b\n")


def test_a_missing_file_is_told_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"line 3: x9\.png does not exist(.|\n)*relative to the folder {tmp_path}/images"
    ):
        listed(tmp_path, "path,label\nc0.png,a\nx9.png,b\n", root="images")
    with pytest.raises(DataError, match=r"data\.root must be the folder.*nowhere is not a folder"):
        listed(tmp_path, "path,label\nc0.png,a\n", root="nowhere")


@pytest.mark.parametrize(
    "header",
    [
        "Path,LABEL",
        "file,class",
        "filename,target",
        "image_id,diagnosis",
        "Image ID,dx",
        "FilePath,Category",
        "img,labels",
    ],
)
def test_usual_names_of_columns_are_understood(tmp_path: Path, header: str) -> None:
    assert pairs(listed(tmp_path, f"{header}\n0.png,a\n1.png,b\n")) == WANTED


@pytest.mark.parametrize(
    ("header", "role"),
    [("file,class,species", "label"), ("file,Label,label", "label"), ("path,label,SET,Partition", "split")],
)
def test_ambiguous_columns_are_refused_with_the_key(tmp_path: Path, header: str, role: str) -> None:
    values = "train,train" if role == "split" else "c,d"
    rows = [
        f"{n}.png,{'ab'[n % 2]},{values if n % 3 else values[::-1] if role == 'label' else values}" for n in range(6)
    ]
    text = "\n".join([header, *(row[: len(row)] for row in rows)])
    text = "\n".join(",".join(line.split(",")[: header.count(",") + 1]) for line in text.splitlines())
    with pytest.raises(DataError, match=rf"several columns that may hold the {role}(.|\n)*data.columns: {{{role}: "):
        listed(tmp_path, text)


def test_a_column_of_the_study_file_decides(tmp_path: Path) -> None:
    text = "file,class,species\n0.png,x,a\n1.png,x,b\n"
    assert pairs(listed(tmp_path, text, columns={"label": "species"})) == WANTED
    with pytest.raises(DataError, match=r"data\.columns\.label must name a column.*file, class, species"):
        listed(tmp_path, text, columns={"label": "kind"})


def test_a_number_and_a_name_of_the_same_class_are_no_conflict(tmp_path: Path) -> None:
    assert pairs(listed(tmp_path, "file,class_id,class_name\n0.png,0,a\n1.png,1,b\n")) == WANTED


def test_of_two_columns_of_paths_the_one_with_files_is_taken(tmp_path: Path) -> None:
    assert pairs(listed(tmp_path, "image_id,filename,label\nx17,0.png,a\nx18,1.png,b\n")) == WANTED


@pytest.mark.parametrize("name", ["split", "Split", "SET", "partition", "subset", "fold"])
def test_the_split_is_read_from_its_usual_columns(tmp_path: Path, name: str) -> None:
    listing = listed(tmp_path, f"path,label,{name}\n0.png,a,Training\n1.png,b,val\n2.png,b,test_set\n")
    assert [sample.fixed_split for sample in listing.samples] == ["train", "validation", "test"]
    assert listing.split_from == "column"
    with pytest.raises(DataError, match="line 4: split must be"):
        listed(tmp_path, f"path,label,{name}\n0.png,a,train\n1.png,b,val\n2.png,b,later\n")


@pytest.mark.parametrize("name", ["fold", "Set"])
def test_numbers_of_folds_are_no_split_and_this_is_said(tmp_path: Path, name: str) -> None:
    listing = listed(tmp_path, f"path,label,{name}\n0.png,a,0\n1.png,b,1\n2.png,b,2\n")
    assert listing.split_from == "drawn" and any(f"data.split.group: {name}" in line for line in listing.warnings)


@pytest.mark.parametrize("name", ["patient_id", "Slide", "well", "plate barcode", "PatientID"])
def test_a_column_of_patients_is_offered_as_the_group_and_taken_by_its_name(tmp_path: Path, name: str) -> None:
    text = f"path,label,{name}\n" + "".join(f"{n}.png,{'ab'[n % 2]},{n // 2}.0\n" for n in range(6))
    listing = listed(tmp_path, text)
    assert any(f"data.split.group: {name}" in line for line in listing.warnings)
    assert {sample.group for sample in listing.samples} == {""}
    chosen = listed(tmp_path, text, split={"group": name.lower()})
    assert [sample.group for sample in chosen.samples] == ["0", "0", "1", "1", "2", "2"]
    assert not any("data.split.group" in line for line in chosen.warnings)


def test_a_group_column_is_used_whatever_its_case(tmp_path: Path) -> None:
    listing = listed(tmp_path, "path,label,Group\n0.png,a,1\n1.png,b,2\n")
    assert [sample.group for sample in listing.samples] == ["1", "2"] and listing.group_rule == "column Group"


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("1.0", "0.0"), ("1.", "0")])
def test_one_column_for_each_class_is_read(tmp_path: Path, one: str, zero: str) -> None:
    rows = ["image,MEL,NV,UNK", f"0,{one},{zero},{zero}", f"1,{zero},{one},{zero}", f"2,{zero},{one},{zero}"]
    listing = listed(tmp_path, "\n".join(rows))
    assert [label for _, label in pairs(listing)] == ["MEL", "NV", "NV"] and listing.classes == ("MEL", "NV")
    assert any("UNK is 1 in no line" in line for line in listing.warnings)


def test_several_ones_in_a_line_are_refused_with_the_lines(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"exactly one of them must be 1(.|\n)*line 3: 2 of them(.|\n)*line 4: 0 of them"
    ):
        listed(tmp_path, "image,cat,dog\n0,1,0\n1,1,1\n2,0,0\n")


def test_one_column_of_0_and_1_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    listing = listed(tmp_path, "image,male,cat,dog\n0,1,1,0\n1,1,0,1\n2,0,0,1\n")
    assert listing.classes == ("cat", "dog") and any("male" in line for line in listing.warnings)


def test_numbers_of_files_are_found_as_floats_and_named_if_zeros_are_lost(tmp_path: Path) -> None:
    assert pairs(listed(tmp_path, "id,label\n0.0,a\n1.0,b\n")) == WANTED
    (tmp_path / "0010.png").touch()
    (tmp_path / "x.jpg").touch()
    with pytest.raises(
        DataError, match=r"line 2: 10 does not exist, but 0010\.png does(.|\n)*x\.png does not exist, but x\.jpg"
    ):
        listed(tmp_path, "id,label\n10,a\nx.png,b\n")


def test_labels_that_join_others_are_said(tmp_path: Path) -> None:
    listing = listed(tmp_path, 'path,label\n0.png,a\n1.png,b\n2.png,a|b\n3.png,"b, a"\n')
    assert any("2 labels name several classes at once, such as 'a|b'" in line for line in listing.warnings)
    assert not listed(tmp_path, "path,label\n0.png,a\n1.png,b+\n2.png,c|d\n").warnings


def test_integers_stored_as_floats_are_integers(tmp_path: Path) -> None:
    assert [label for _, label in pairs(listed(tmp_path, "path,label\n0.png,1.0\n1.png,0.0\n2.png,1\n"))] == [
        "1",
        "0",
        "1",
    ]
    kept = listed(tmp_path, "path,label\n0.png,1.0\n1.png,1.5\n")
    assert [label for _, label in pairs(kept)] == ["1.0", "1.5"]


def test_labels_that_look_missing_are_classes_and_said(tmp_path: Path) -> None:
    listing = listed(tmp_path, "path,label\n0.png,a\n1.png,NA\n2.png,NA\n3.png,b\n")
    assert listing.classes == ("NA", "a", "b")
    assert any("label NA of 2 images" in line and "drop: [NA]" in line for line in listing.warnings)


@pytest.mark.parametrize("name", ["t.tsv", "T.TSV", "t.txt", "t.csv"])
def test_tables_of_every_suffix_are_given_as_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "s.yaml").write_text("description: x\n")
    (tmp_path / name).touch()
    loaded = load_study("s", Overrides(data=str(tmp_path / name)), studies=tmp_path)
    assert loaded.study.data.source.csv == str(tmp_path / name)  # type: ignore[union-attr]


def test_a_spreadsheet_as_data_says_what_to_save(tmp_path: Path) -> None:
    (tmp_path / "cells.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "s.yaml").write_text("description: x\n")
    loaded = load_study("s", Overrides(data=str(tmp_path / "cells.xlsx")), studies=tmp_path)
    with pytest.raises(DataError, match=r"cells\.xlsx is a spreadsheet; save it as CSV"):
        list_source(loaded.study.data, cache=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path;label\n0.png;a\n1.png;a\n", ["; (semicolon)"]),
        ("path,label\n0,a\n1,a\n", ["0 as 0.png"]),
        ("path,label\n0.png,a,\n1.png,a,\n", ["comma"]),
        ("Image;Diagnosis;\nC:\\x\\0;a;\nC:\\x\\1;a;\n", ["semicolon", "Image", "0.png", "first 2 folders"]),
    ],
)
def test_a_later_refusal_says_how_the_table_was_read(tmp_path: Path, text: str, words: list[str]) -> None:
    for number in range(2):
        Image.fromarray(np.full((8, 8, 3), 100 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match="at least two classes") as error:
        open_dataset(DataConfig.model_validate({"source": {"csv": str(tmp_path / "t.csv")}}), cache=tmp_path)
    assert all(word in str(error.value) for word in words)
