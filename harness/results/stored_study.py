"""Read a study's JSON files: bounded, and with the event log behind study.json.

The log's first event holds the study as it was started, and its lines have checksums. So study.json counts only if it
is that study's; otherwise the log is asked. A file that may come from anyone is not read beyond MOST_JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.config.study import StudyConfig
from harness.errors import HarnessError
from harness.results.event_types import StudyCreated
from harness.results.events import first_event
from harness.results.paths import MOST_JSON, StudyFolder


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        HarnessError: the file is missing, too large, no JSON, or no object.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_JSON + 1)
    except OSError as error:
        raise HarnessError(f"{path.name} cannot be read ({error.strerror})") from None
    if len(content) > MOST_JSON:
        raise HarnessError(f"{path.name} has more than {MOST_JSON:,} bytes, which no study needs")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise HarnessError(f"{path.name} is no JSON") from None
    if not isinstance(found, dict):
        raise HarnessError(f"{path.name} is no JSON object")
    return found


def object_or_empty(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that the page can do without; {} if it cannot be read."""
    try:
        return read_object(path)
    except HarnessError:
        return {}


def stored_document(folder: StudyFolder) -> dict[str, Any]:
    """Return what study.json holds (`name`, `study`, `fingerprint`), with a study that is valid.

    If the file cannot be read, or is not of the study that the log created, the log's first event is taken.

    Raises:
        HarnessError: neither of them holds the study.
    """
    found = object_or_empty(folder.study_json)
    first = first_event(folder.events)
    created = first.data if first is not None and isinstance(first.data, StudyCreated) else None
    if _is_valid(found.get("study")) and (created is None or _is_of(found, folder, created)):
        return found
    if created is not None and _is_valid(created.study):
        return {"name": folder.name, "study": created.study, "fingerprint": created.fingerprint}
    raise HarnessError(
        f"the study {folder.name} is damaged: neither its study.json nor its log describes a study of this version; "
        f"restore one of them from a copy, or remove what is left with `harness rm {folder.name}`."
    )


def _is_of(document: dict[str, Any], folder: StudyFolder, created: StudyCreated) -> bool:
    return document.get("name") == folder.name and document.get("fingerprint") == created.fingerprint


def _is_valid(values: object) -> bool:
    try:
        StudyConfig.model_validate(values)
    except ValueError:  # pydantic's error is one too
        return False
    return True


def stored_address(folder: StudyFolder, key: str) -> str | None:
    """Return the study's `tracking_uri` or `storage` without its password; None if the study has none.

    Raises:
        HarnessError: as `stored_document`.
    """
    address = stored_document(folder)["study"].get(key)
    return str(address) if address else None
