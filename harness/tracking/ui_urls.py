"""Find the addresses of a study's pages on a running MLflow server. This file does not import mlflow."""

from __future__ import annotations

import json
import os
import socket
from base64 import b64encode
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from harness.safe_text import masked
from harness.tracking.address import TrackingError
from harness.tracking.mapping import MODE, VIEW, VIEW_TAG


def describe(base: str, study: str | None) -> list[str]:
    """Return lines with the addresses of a study's runs and of its parent run with verdict, data and report.

    The saved view sets the columns (see `mapping.view_state`).
    """
    shown = masked(base).rstrip("/")
    experiment = _experiment(base, study) if study is not None else None
    if experiment is None:
        return [f"MLflow: {shown}/#/experiments?{MODE}"]
    number = experiment["experiment_id"]
    view = any(tag["key"] == VIEW_TAG for tag in experiment.get("tags", []))
    runs = f"{shown}/#/experiments/{number}/runs?{MODE}{f'&viewStateShareKey={VIEW}' * view}"
    parent = _parent_run(base, number)
    return [f"MLflow, all runs of {study}: {runs}"] + (
        [f"Its verdict, data and report: {shown}/#/experiments/{number}/runs/{parent}?{MODE}"] if parent else []
    )


def _experiment(base: str, study: str) -> dict[str, Any] | None:
    """Return a study's experiment on a running server; None if there is none or the server does not answer."""
    query = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(study, safe='')}"
    try:
        found: dict[str, Any] = json.loads(_get(base.rstrip("/") + query))["experiment"]
        return found
    except (OSError, ValueError, KeyError):
        return None


def _parent_run(base: str, experiment: str) -> str | None:
    """Return the run id of an experiment's newest parent run; None if there is none."""
    wanted = {"experiment_ids": [experiment], "filter": "tags.kind = 'study'", "max_results": 1}
    try:
        body = _get(base.rstrip("/") + "/api/2.0/mlflow/runs/search", send=json.dumps(wanted).encode())
        return str(json.loads(body)["runs"][0]["info"]["run_id"])
    except (OSError, ValueError, LookupError):
        return None


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
