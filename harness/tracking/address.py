"""Where MLflow lies and how it is reached: addresses, their passwords, the settings it is imported with."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from harness.config.load import read_yaml
from harness.errors import ConfigError, HarnessError
from harness.results.paths import home
from harness.safe_text import lacks_password, masked, with_password

# Only where the user has not said otherwise: a server that is down must cost seconds, not minutes.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # one line a run would tear the progress bars
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a logged model must not pin what happens to lie in the current folder
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class TrackingError(HarnessError):
    """MLflow cannot be used as it stands; the message says what to mend."""


class TrackingUnavailable(TrackingError):
    """MLflow does not answer now. Nothing is lost: the event log is sent by a later `catch_up`."""


def prepare_environment() -> None:
    """Set what MLflow reads when it is imported: telemetry off unless the user turned it on, short timeouts."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("DO_NOT_TRACK", "true")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def tracking_address(configured: str | None = None) -> str:
    """The MLflow store or server: MLFLOW_TRACKING_URI, then the study's `tracking_uri`, then <home>/mlflow.db.

    A stored address has no password (see `prepare.stored`): MLFLOW_TRACKING_PASSWORD fills it in.

    Raises:
        TrackingError: the address is a folder of files, which MLflow no longer writes.
        ConfigError: the address lacks its password, and nothing here says it.
    """
    address = (os.environ.get("MLFLOW_TRACKING_URI") or configured or default_address()).strip()
    if lacks_password(address):
        address = _completed(address)
    scheme = urlsplit(address).scheme
    if scheme in ("", "file"):
        raise TrackingError(
            f"the MLflow address must be a server (http://...) or a database (sqlite:///...), but got "
            f"{masked(address)!r}; leave tracking_uri and MLFLOW_TRACKING_URI out for {home().name}/mlflow.db."
        )
    return address


def _completed(address: str) -> str:
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    whole = with_password(address, password) if password else None
    if whole is None:
        raise ConfigError(
            f"the password of the MLflow address {address} is not stored with the study, but it is needed here: set "
            "MLFLOW_TRACKING_PASSWORD, or the whole address as MLFLOW_TRACKING_URI."
        )
    return whole


def address_of(study: str, stored: str | None) -> str:
    """The MLflow address of a study that is here; its password from studies/NAME.yaml, where that still holds it.

    Args:
        study: its name.
        stored: what the stored study says, without a password.

    Raises:
        TrackingError, ConfigError: as `tracking_address`.
    """
    if stored is not None and lacks_password(stored):
        stored = in_study_file(study, "tracking_uri", stored) or stored
    return tracking_address(stored)


def in_study_file(name: str, key: str, stored: str) -> str | None:
    """The address that the study's file gives under `key`, where it is the stored one with its password."""
    path = Path("studies") / f"{name}.yaml"
    try:
        given = read_yaml(path).get(key) if path.is_file() else None
    except ConfigError:  # broken since: no reason to show less than without the file
        return None
    return given if isinstance(given, str) and masked(given) == stored else None


def default_address() -> str:
    """The embedded store: one SQLite file in the folder of all state."""
    return sqlite_address(home() / "mlflow.db")


def sqlite_address(path: Path) -> str:
    """The address of a SQLite file."""
    text = str(path)
    for sign in "%?#":  # they mean something in an address; a space does not trouble SQLAlchemy
        text = text.replace(sign, quote(sign))
    return f"sqlite:///{text}"


def sqlite_path(address: str) -> Path | None:
    """The file behind a SQLite address; None for every other kind, and for a database in memory."""
    scheme, separator, path = address.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    path = unquote(path.partition("?")[0])
    return Path(path) if path and path != ":memory:" else None


def local_path(address: str) -> Path | None:
    """The folder behind a `file:` address or a plain path; None for every other kind."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def is_remote(address: str) -> bool:
    """True for a tracking server, False for a database that this machine opens by itself."""
    return urlsplit(address).scheme in ("http", "https")


def answers(address: str, seconds: float = 2.0) -> bool:
    """Whether something listens at a server's address; True where a proxy stands between and nobody can tell.

    Costs a fraction of a millisecond where a port is closed, instead of the client's seconds of retries.
    """
    parts = urlsplit(address)
    host = parts.hostname
    if host is None:
        return False
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, ValueError):
        return False
    return True
