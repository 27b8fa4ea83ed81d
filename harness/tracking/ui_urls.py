"""Find the addresses of a study's pages on a running MLflow server. This file does not import mlflow."""

from __future__ import annotations

import json
import os
import socket
from base64 import b64encode
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from harness.safe_text import masked
from harness.tracking.address import TrackingError
from harness.tracking.mapping import MODE, VIEW, VIEW_TAG


def describe(base: str, study: str | None, identity: str | None) -> list[str]:
    """Return lines with the addresses of a study's runs and of its parent run with verdict, data and report.

    The saved view sets the columns (see `mapping.view_state`).

    Args:
        base: address of the server.
        study: name of the study, as it is shown.
        identity: the study's id, see `mapping.study_id`; without it, the page of all experiments is named.
    """
    shown = masked(base).rstrip("/")
    try:
        found = _parent_run(base, identity) if identity is not None else None
    except (OSError, ValueError, LookupError):  # it does not answer, or not as MLflow does
        found = None
    if found is None:
        return [f"MLflow: {shown}/#/experiments?{MODE}"]
    experiment, parent = found
    page = f"{shown}/#/experiments/{experiment['experiment_id']}/runs"
    view = any(tag["key"] == VIEW_TAG for tag in experiment.get("tags", []))
    return [
        f"MLflow, all runs of {study}: {page}?{MODE}{f'&viewStateShareKey={VIEW}' * view}",
        f"Its verdict, data and report: {page}/{parent}?{MODE}",
    ]


def _parent_run(base: str, identity: str) -> tuple[dict[str, Any], str] | None:
    """Return a study's experiment on a running server and the id of its parent run; None if the server has none.

    The run is found by the study's id, as everywhere: a user may have renamed the experiment, and another study may
    have an experiment of this name.
    """
    experiments: dict[str, dict[str, Any]] = {}
    wanted: dict[str, Any] = {"max_results": 1000}
    while True:
        page = _ask(base, "experiments/search", wanted)
        experiments |= {found["experiment_id"]: found for found in page.get("experiments", [])}
        if not page.get("next_page_token"):
            break
        wanted["page_token"] = page["next_page_token"]
    condition = f"tags.`harness.study_id` = '{identity}'"
    wanted = {"experiment_ids": list(experiments), "filter": condition, "max_results": 1}
    for run in _ask(base, "runs/search", wanted).get("runs", []) if experiments else []:
        return experiments[run["info"]["experiment_id"]], str(run["info"]["run_id"])
    return None


def _ask(base: str, method: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Call a method of MLflow's interface for programs."""
    body = _get(f"{base.rstrip('/')}/api/2.0/mlflow/{method}", send=json.dumps(wanted).encode())
    answer: dict[str, Any] = json.loads(body)
    return answer


def _get(url: str, seconds: float = 5.0, send: bytes | None = None) -> bytes:
    """Return the body of a page; the request is a POST if `send` is given. This machine is reached without a proxy."""
    # an address may contain a user name and password, which urllib would read as a part of the host
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    opener = build_opener(ProxyHandler({})) if _is_ours(parts.hostname or "") else build_opener()
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"not an address of a server: {masked(url)}")
    request = Request(parts._replace(netloc=host).geturl(), data=send)  # noqa: S310 - the scheme was checked
    if send is not None:
        request.add_header("Content-Type", "application/json")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if parts.username:
        user, password = unquote(parts.username), unquote(parts.password or "")
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    with opener.open(request, timeout=seconds) as reply:
        body: bytes = reply.read()
    return body


def is_up(base: str) -> bool:
    """Whether MLflow answers at this address.

    Raises:
        TrackingError: another server answers there.
    """
    try:
        return _get(f"{base}/health", 1.0) == b"OK"
    except HTTPError as error:
        raise TrackingError(
            f"a server at {base} is not MLflow: it answers {error.code} for MLflow's health page."
        ) from None
    except (URLError, OSError):
        return False


def _is_ours(host: str) -> bool:
    """Whether this is an address of this machine. Only then can a socket be bound to it."""
    with socket.socket(family(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def family(host: str) -> socket.AddressFamily:
    """Return the address family: IPv6 for an address with a colon, otherwise IPv4, also for a name."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
