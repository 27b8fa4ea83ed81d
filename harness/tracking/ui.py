"""`make ui`: MLflow's own server on 127.0.0.1, and an address that opens on a study's runs. No mlflow import here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from harness.errors import ConfigError, ResourceError
from harness.results.home import home
from harness.tracking.projection import MODE, VIEW, VIEW_TAG
from harness.tracking.store import TrackingError, is_remote, masked, prepare_environment, sqlite_path

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 8.0


def serve(study: str | None, *, port: int = 5000, address: str, say: Callable[[str], None] = print) -> int:
    """Show MLflow's pages until Ctrl-C or SIGTERM, and return the exit code.

    Where the tracking address is a server already, only its page is named and nothing is started.

    Args:
        study: whose runs the page opens on; all experiments where it is None.
        port: wanted; the next free one is taken where it is in use. 0 takes any.
        address: from `store.tracking_address`.
        say: gets the lines for the user.

    Raises:
        ConfigError: the port lies outside 0..65535.
        ResourceError: there is nothing to show yet, no port is free, or the server does not start.
    """
    if is_remote(address):
        for line in describe(address, study):
            say(line)
        return 0
    path = sqlite_path(address)
    if path is not None and not path.exists():
        raise ResourceError(f"{path.name} is not there yet: MLflow has runs to show once a study has started.")
    base = f"http://{HOST}:{free_port(port)}"
    log = home() / "mlflow-server.log"
    with _stopping() as stopped, _server(address, base, log, stopped) as server:
        if server.poll() is None and not stopped:
            for line in (*describe(base, study), "Ctrl-C stops it."):
                say(line)
        while not stopped and server.poll() is None:
            time.sleep(0.2)
        if not stopped:
            last = " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])[:300]
            raise ResourceError(
                f"the MLflow server ended by itself (exit code {server.returncode}: {masked(last)}); "
                f"its messages are in {log.parent.name}/{log.name}."
            )
    return 0


def describe(base: str, study: str | None) -> list[str]:
    """The lines that name a server's pages: the study's runs, and its own run with verdict, data and report.

    The saved view brings the columns (see `projection.view_state`).
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
    """A study's experiment on a running server; None where the server knows none or does not answer."""
    query = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(study, safe='')}"
    try:
        found: dict[str, Any] = json.loads(_get(base.rstrip("/") + query))["experiment"]
        return found
    except (OSError, ValueError, KeyError):
        return None


def _parent_run(base: str, experiment: str) -> str | None:
    """The newest study run of an experiment."""
    wanted = {"experiment_ids": [experiment], "filter": "tags.kind = 'study'", "max_results": 1}
    try:
        body = _get(base.rstrip("/") + "/api/2.0/mlflow/runs/search", send=json.dumps(wanted).encode())
        return str(json.loads(body)["runs"][0]["info"]["run_id"])
    except (OSError, ValueError, LookupError):
        return None


def free_port(wanted: int) -> int:
    """The wanted port, or the next one that is free (of twenty, then any)."""
    if not 0 <= wanted <= 65535:
        raise ConfigError(f"the port must lie in 0..65535, but got {wanted}")
    for port in (*range(wanted, min(wanted + 20, 65536)), 0) if wanted else (0,):
        with socket.socket() as probe:
            # as the server itself does: a port that only waits for its last packets is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ResourceError(f"no port is free on {HOST}; close another program, or name one with --port.")


def _get(url: str, seconds: float = 5.0, send: bytes | None = None) -> bytes:
    """The body of a page, past any proxy where it is this machine's; a POST where there is something to send."""
    opener = build_opener(ProxyHandler({})) if url.startswith(f"http://{HOST}:") else build_opener()
    # an address may carry a name and password; urllib would take them for a part of the host
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
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


def _is_up(base: str) -> bool:
    try:
        return _get(f"{base}/health", 1.0) == b"OK"
    except HTTPError as error:
        raise TrackingError(f"{base} answers {error.code} where MLflow's health page should be.") from None
    except (URLError, OSError):
        return False


@contextmanager
def _server(address: str, base: str, log: Path, stopped: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, answering; at the end the whole group is gone."""
    prepare_environment()
    environment = {
        **os.environ,
        # by the environment, because a password in an argument is seen by every user of the machine
        "MLFLOW_BACKEND_STORE_URI": address,
        "MLFLOW_ARTIFACTS_DESTINATION": (home() / "artifacts").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes and 490 MB instead of 10 and 980 MB
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    port = base.rpartition(":")[2]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", port, "--workers", "1"]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + START_SECONDS
        while not stopped and server.poll() is None and not _is_up(base):
            if time.monotonic() > end:
                raise ResourceError(f"the MLflow server did not answer within {START_SECONDS:.0f} s at {base}.")
            time.sleep(0.2)
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers: first asked, then forced."""
    for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.killpg(server.pid, sign)
        except (ProcessLookupError, PermissionError):
            break
        try:
            server.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        end = time.monotonic() + seconds
        while time.monotonic() < end and _group_lives(server.pid):
            time.sleep(0.05)
    server.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that fills when a signal asks to stop; the old handlers come back afterwards."""
    stopped: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        stopped.append(signum)

    signs = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(sign, signal.signal(sign, note)) for sign in signs]
    try:
        yield stopped
    finally:
        for sign, handler in before:
            signal.signal(sign, handler)
