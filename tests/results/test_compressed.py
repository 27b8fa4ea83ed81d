"""Compressed logs are read like others, never written, and nothing is unpacked further than its size allows."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.results import compressed
from harness.results.compressed import check_arrays, most_unpacked, open_compressed
from harness.results.event_types import SessionEnded, StudyCreated
from harness.results.events import EventLog, first_event, read_events, scan_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three events."""
    made = EventLog(tmp_path / "tiny" / "events.jsonl")
    made.append(StudyCreated({"name": "tiny"}, {}))
    for seconds in (1.0, 2.0):
        made.append(SessionEnded("finished", seconds))
    made.close()
    return tmp_path / "tiny" / "events.jsonl"


def packed(log: Path, content: bytes | None = None) -> Path:
    path = log.with_name("events.jsonl.gz")
    path.write_bytes(compressed.compressed(log.read_bytes() if content is None else content))
    return path


def test_a_compressed_log_is_read_as_the_plain_one(log: Path) -> None:
    path = packed(log)
    assert read_events(path) == read_events(log)
    assert scan_log(path) == scan_log(log)
    assert first_event(path) == first_event(log)


def test_a_compressed_log_is_not_written(log: Path) -> None:
    path = packed(log)
    before = path.read_bytes()
    with pytest.raises(HarnessError, match="can be read and not continued") as refused:
        EventLog(path)
    assert refused.value.exit_code == 2
    assert path.read_bytes() == before


def test_damage_inside_a_compressed_log_is_told_without_the_doctor(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    with pytest.raises(HarnessError, match="damaged in line 2: take the study's files anew"):
        read_events(packed(log, b"".join([lines[0], b"?\n", lines[2]])))


@pytest.mark.parametrize("change", ["cut", "bytes"])
def test_a_damaged_gzip_file_is_one_clear_error(log: Path, change: str) -> None:
    path = packed(log)
    content = path.read_bytes()
    path.write_bytes(content[:-12] if change == "cut" else b"\x1f\x8b\x08\x00" + bytes(range(60)))
    with pytest.raises(HarnessError, match=r"events\.jsonl\.gz is damaged and cannot be unpacked"):
        read_events(path)


def test_equal_content_gives_equal_bytes_whatever_the_time() -> None:
    assert compressed.compressed(b"a" * 100) == compressed.compressed(b"a" * 100)
    assert compressed.compressed(b"")[4:8] == bytes(4)  # gzip's own time


def test_a_bomb_is_stopped_at_the_bound_that_its_size_sets(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    bound = most_unpacked(path)
    assert bound < 10 << 20
    read = 0
    with open_compressed(path) as stream, pytest.raises(HarnessError, match="would unpack to more than"):
        while piece := stream.read(1 << 16):
            read += len(piece)
    assert read <= bound
    with pytest.raises(HarnessError, match="would unpack to more than"):
        read_events(path)


def test_a_file_that_unpacks_to_its_bound_exactly_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(1000)))
    monkeypatch.setattr(compressed, "MOST_BYTES", 1000)
    with open_compressed(path) as stream:
        assert stream.read() == bytes(1000)
    monkeypatch.setattr(compressed, "MOST_BYTES", 999)
    with open_compressed(path) as stream, pytest.raises(HarnessError, match="more than 999"):
        stream.read()


def test_arrays_are_measured_by_their_headers(tmp_path: Path) -> None:
    sound, bomb, lie, words = (tmp_path / f"{name}.npz" for name in ("sound", "bomb", "lie", "words"))
    np.savez_compressed(sound, rows=np.arange(100), groups=np.array(["a", "b"]))
    check_arrays(sound)
    np.savez_compressed(bomb, rows=np.zeros(64 << 20, np.uint8))
    with pytest.raises(HarnessError, match=r"bomb\.npz has .* would unpack to more than"):
        check_arrays(bomb)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(lie, "w") as stored:  # says that it has terabytes, and holds 8 bytes
        stored.writestr("rows.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8))
    with pytest.raises(HarnessError, match="would unpack to more than"):
        check_arrays(lie)
    words.write_bytes(b"no archive")
    with pytest.raises(HarnessError, match="is damaged"):
        check_arrays(words)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([{}], dtype=object))
    with zipfile.ZipFile(tmp_path / "objects.npz", "w") as stored:
        stored.writestr("rows.npy", stream.getvalue())
    with pytest.raises(HarnessError):
        check_arrays(tmp_path / "objects.npz")
