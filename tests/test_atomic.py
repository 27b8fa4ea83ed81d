"""A file that cannot be written is named, with the free bytes of its own file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import atomic
from harness.atomic import atomic_write, disk_errors
from harness.errors import DiskFullError


@pytest.fixture
def two_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of which the second is on a disk of its own, with 7 bytes left."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=7 if Path(folder).is_relative_to(other) else 10**12)

    monkeypatch.setattr(atomic.shutil, "disk_usage", usage)
    return home, other


def test_the_file_system_of_the_file_that_failed_is_measured(two_disks: tuple[Path, Path]) -> None:
    home, other = two_disks
    with pytest.raises(DiskFullError) as full, disk_errors(home):
        raise OSError(errno.ENOSPC, "No space left on device", str(other / "page" / "index.html"))
    assert f"cannot write {other / 'page' / 'index.html'} (" in str(full.value)
    assert f"7 bytes free on the file system of {other})" in str(full.value)


def test_the_folder_itself_may_be_where_the_disk_begins(two_disks: tuple[Path, Path]) -> None:
    _, other = two_disks
    with pytest.raises(DiskFullError, match="; 7 bytes free"), disk_errors(other):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_whose_error_names_none_is_named_by_who_writes_it(
    two_disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = two_disks

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"page\.html \(.*; 7 bytes free"), disk_errors(home):
        atomic_write(other / "page.html", "text")
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("name", [b"/proc/\xff/x", "relative/file"])
def test_any_name_of_a_file_can_be_told(name: bytes | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiskFullError, match="bytes free on the file system of /"), disk_errors(tmp_path):
        raise OSError(errno.EDQUOT, "Quota exceeded", name)


def test_a_folder_that_may_not_be_written_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="make it writable") as refused, disk_errors(tmp_path):
        raise OSError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    assert "bytes free" not in str(refused.value) and "make room" not in str(refused.value)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "x"))


def test_nothing_is_written_through_a_link_of_the_temporary_name(tmp_path: Path) -> None:
    """A folder from someone else may hold links of many such names."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / f".page.{os.getpid()}.part.html").symlink_to(secret)
    atomic_write(tmp_path / "study" / "page.html", "new")
    assert secret.read_text() == "mine"
    assert (tmp_path / "study" / "page.html").read_text() == "new"
    assert not (tmp_path / "study" / "page.html").is_symlink()
