"""Run MLflow's server on 127.0.0.1 and print the address of a study's runs: `make ui`. It does not import mlflow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from harness.errors import ConfigError, HarnessError, ResourceError
from harness.results.events import first_event
from harness.results.paths import StudyFolder, home
from harness.safe_text import masked
from harness.stop_signals import stop_signals
from harness.tracking import ui_guard
from harness.tracking.address import is_remote, prepare_environment, sqlite_path
from harness.tracking.mapping import study_id
from harness.tracking.moved_home import follow_home
from harness.tracking.ui_urls import describe, family, is_up

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 8.0


def serve(
    study: str | None,
    *,
    port: int = 5000,
    address: str,
    host: str = HOST,
    exposed: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Show MLflow's pages until Ctrl-C or SIGTERM, and return the exit code.

    If the tracking address is already a server, its page is printed and nothing is started. MLflow checks the Host and
    Origin headers of every request, and no environment variable turns that off. Without this check any page in a
    browser could reach the server through a host name that points to this machine.

    Args:
        study: name of the study whose runs the page shows; None shows all experiments.
        port: wanted port; if it is in use, the next free one is taken. 0 takes any free port.
        address: from `address.tracking_address`.
        host: address to listen on; all but 127.0.0.1 need `exposed` too.
        exposed: the user knows that others can then read and change every study.
        say: called with each line for the user.

    Raises:
        ConfigError: the port is outside 0..65535, or `host` was given without `exposed`.
        ResourceError: there is nothing to show yet, no port is free, or the server does not start.
    """
    if host != HOST and not exposed:
        raise ConfigError(
            f"the MLflow UI listens on {HOST} alone, but got host {host!r}: it has no password, so everybody who "
            "reaches that address could read and change every study. If you want this, set both: "
            "HOST=... EXPOSED=1 (--host ... --exposed). A tunnel (ssh -L) needs neither."
        )
    if is_remote(address):
        for line in describe(address, study, _identity(study)):
            say(line)
        return 0
    path = sqlite_path(address)
    if path is not None and not path.exists():
        raise ResourceError(f"{path.name} does not exist yet: MLflow has runs to show once a study has started.")
    follow_home(address)
    base = f"http://{_url_host(host)}:{free_port(port, host)}"
    log = home() / "mlflow-server.log"
    with _stopping() as stopped, _server(_environment(address, exposed), host, base, log, stopped) as server:
        if server.poll() is None and not stopped:
            for line in (*describe(base, study, _identity(study)), "Ctrl-C stops it."):
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


def _identity(study: str | None) -> str | None:
    """Return the id of a study in the home; None if its log does not give one."""
    try:
        first = first_event(StudyFolder(study).events) if study is not None else None
    except HarnessError:  # the page of all experiments can be shown all the same
        return None
    return study_id(study, first) if study is not None and first is not None else None


def _url_host(host: str) -> str:
    """Return the host as written in a URL; the local address if the server listens on all addresses."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only compared; listening on it needs two settings of the user
        return HOST if host == "0.0.0.0" else "[::1]"  # noqa: S104
    return f"[{host}]" if ":" in host else host


def free_port(wanted: int, host: str = HOST) -> int:
    """Return the wanted port on this host, otherwise the next free one of twenty, otherwise any free port."""
    if not 0 <= wanted <= 65535:
        raise ConfigError(f"the port must lie in 0..65535, but got {wanted}")
    for port in (*range(wanted, min(wanted + 20, 65536)), 0) if wanted else (0,):
        with socket.socket(family(host)) as probe:
            # the server does the same: a port that only waits for its last packets counts as free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ResourceError(
        f"no port is free on {host}, or that is no address of this machine; close another program, or name one with "
        "--port."
    )


def _environment(address: str, exposed: bool) -> dict[str, str]:
    """Return the server's environment: ours without the variables that disable its checks or change its address."""
    prepare_environment()
    environment = {
        **os.environ,
        # not as an argument, because every user of the machine can read the passwords in arguments
        "MLFLOW_BACKEND_STORE_URI": address,
        "MLFLOW_ARTIFACTS_DESTINATION": (home() / "artifacts").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes and 490 MB instead of 10 and 980 MB
    }
    lists = () if exposed else ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", *lists):
        environment.pop(name, None)
    return environment


@contextmanager
def _server(
    environment: dict[str, str], host: str, base: str, log: Path, stopped: list[int]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server in its own process group, wait until it answers, and end the whole group after the block.

    The group also ends if this process is killed; see `ui_guard`.
    """
    port = base.rpartition(":")[2]
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port, "--workers", "1"]
    guard = [sys.executable, "-I", str(Path(ui_guard.__file__).resolve())]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [*guard, *command],
            env=environment,
            start_new_session=True,
            stdin=subprocess.PIPE,  # never written to; see `ui_guard`
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not stopped and server.poll() is None and not is_up(base):
            if time.monotonic() > end:
                raise ResourceError(f"the MLflow server did not answer within {START_SECONDS:.0f} s at {base}.")
            time.sleep(0.2)
        yield server
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers with SIGTERM, and then with SIGKILL if they still run."""
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
    if server.stdin is not None:
        server.stdin.close()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Yield a list to which each stop signal is appended; restore the old handlers afterwards."""
    stopped: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        stopped.append(signum)

    before = [(sign, signal.signal(sign, note)) for sign in stop_signals()]
    try:
        yield stopped
    finally:
        for sign, handler in before:
            signal.signal(sign, handler)
