"""A finished study's stored files, small enough to hand on and to keep beside its page: what `harness pack` writes.

Held back are the images (thumbnails, mistakes), the models, and the test labels but for those that stand beside the
predictions. Absolute paths, passwords and the names of groups are taken out, in the words in which the page takes them
out. Predictions that the verdict is made of keep their float32: as float16 they take half the room, and change the
page's numbers. Of those on smaller data and shifted images the answered classes are enough for most objectives.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import explored
from harness.analysis.study_data import StudyData
from harness.analysis.wording import redact, redact_all
from harness.atomic import atomic_write, disk_errors
from harness.errors import ConfigError, HarnessError, StudyHeldError
from harness.results import event_types
from harness.results.compressed import compressed, read_arrays
from harness.results.csv import map_texts
from harness.results.events import Event, encode, read_events
from harness.results.metrics import METRICS
from harness.results.packed import open_stored
from harness.results.paths import STORED, StudyFolder, home, reports, stored_in
from harness.results.stored_study import object_or_empty, stored_document
from harness.results.study_state import StudyState
from harness.study.lock import is_held


@dataclass(frozen=True)
class Packed:
    """What was written."""

    place: Path  # folder of the stored files
    files: int
    bytes: int

    @property
    def argument(self) -> Path:
        """What `harness report` takes."""
        return self.place.parent if self.place.name == STORED else self.place


def pack_study(folder: StudyFolder, to: Path | None = None) -> Packed:
    """Write the stored files of a finished study, replacing those that an earlier call wrote there.

    What was written is read back, and must say the same as the study before it takes its place.

    Args:
        to: folder of the stored files; examples/NAME/study among the reports where it is None.

    Raises:
        StudyHeldError: the study runs.
        ConfigError: it has no verdict yet, a link leads out of its folder, or the other folder holds something else.
    """
    folder.check_inside()
    place = (to.expanduser() if to else reports() / "examples" / folder.name / STORED).resolve()
    events = read_events(folder.events)
    _check_finished(folder, StudyState.of(events))
    _check_free(folder, place)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
    with disk_errors(place):
        try:
            _write(folder, events, temporary)
            _check_same(folder, temporary)
            if place.exists():
                shutil.rmtree(place)
            temporary.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    files = [path for path in place.rglob("*") if path.is_file()]
    return Packed(place, len(files), sum(path.stat().st_size for path in files))


def _check_finished(folder: StudyFolder, state: StudyState) -> None:
    if is_held(folder):
        raise StudyHeldError(f"the study {folder.name} runs: it can be packed when it is finished.")
    if not state.verdicts or not state.done:
        lacking = "has not come to its end" if state.verdicts else "has no verdict yet"
        raise ConfigError(
            f"the study {folder.name} {lacking}: a finished study is packed; `harness study` continues it."
        )


def _check_free(folder: StudyFolder, place: Path) -> None:
    """Refuse a place where something lies that is not this study, packed."""
    if place.is_relative_to(home()):
        raise ConfigError(f"{place} lies in HARNESS_HOME, whose folders are studies that run: give another one (--to).")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if place.is_dir() and stored_in(place) == place and not (place / "events.jsonl").exists():
        try:
            if StudyFolder.at(place).name == folder.name:
                return
        except ConfigError:
            pass
    raise ConfigError(
        f"{place} is there already and is not the packed study {folder.name}: give another folder (--to)."
    )


def _write(folder: StudyFolder, events: Sequence[Event], place: Path) -> None:
    document = stored_document(folder)
    _write_json(place / folder.study_json.name, {**document, "name": folder.name})
    for path in (folder.data_card, folder.importance):
        if found := object_or_empty(path):
            _write_json(place / path.name, found)
    lines = b"".join(encode(_without_paths(event)) for event in events)
    atomic_write(place / "events.jsonl.gz", compressed(lines))
    if folder.manifest.exists():
        atomic_write(place / f"{folder.manifest.name}.gz", compressed(_manifest(folder.manifest).encode()))
    state = StudyState.of(events)
    judged = {PurePosixPath(scored.predictions).name for scored in state.test_scores}
    explored = {PurePosixPath(one.predictions).name for one in state.explored} - judged
    by_class = not METRICS[document["study"]["objective"]].needs_probabilities
    for name in sorted(judged | explored):
        source = folder.predictions / name
        if source.exists():
            atomic_write(place / "predictions" / name, _predictions(source, only_answers=by_class and name in explored))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(redact_all(document), indent=1, ensure_ascii=True))


def _without_paths(event: Event) -> Event:
    return Event(event.seq, event.at, event_types.from_json(event.kind, redact_all(event_types.to_json(event.data))))


def _manifest(path: Path) -> str:
    """The manifest, whose cells are safe for a spreadsheet already, without absolute paths."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    return str(table.apply(map_texts, change=redact).to_csv(index=False, lineterminator="\n"))


def _predictions(path: Path, *, only_answers: bool) -> bytes:
    """The file's arrays, the groups by numbers that sort as their names do: a name may tell of a patient.

    Args:
        path: the file of predictions in the study's folder.
        only_answers: keep the classes that were answered instead of the probabilities, which takes a fortieth of the
            room. It is enough for scores on smaller data or shifted images if the objective counts answers.
    """
    arrays: dict[str, Any] = read_arrays(path, ("probabilities", "labels", "groups", "rows"))
    if only_answers:
        probabilities = arrays.pop("probabilities")
        classes = probabilities.shape[1]
        arrays = {
            "answers": probabilities.argmax(1).astype(np.min_scalar_type(classes)),
            "classes": np.array(classes),
            **arrays,
        }
    _, number = np.unique(arrays["groups"].astype(np.str_), return_inverse=True)
    arrays["groups"] = np.array([f"{group:06d}" for group in number.tolist()])
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _check_same(folder: StudyFolder, place: Path) -> None:
    """Refuse a pack that would give another page than the study."""
    if _told(StudyData.read(folder)) != _told(StudyData.read(open_stored(str(place)))):
        raise HarnessError(f"the packed files of {folder.name} do not say what the study says: nothing was written.")


def _told(story: StudyData) -> str:
    """Every number of the page, as text; equal texts stand for equal bits."""
    after = explored.as_json(story.changed, story.sizes, story.shifts)
    values = (story.summary, after, redact_all(story.trials.to_dict("list")), redact_all(story.importance), story.card)
    return json.dumps(values, default=str)
