"""The address of MLflow: which one a study uses, its password, and the settings for importing MLflow.

This file does not import MLflow, so that every command can use it at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from harness.config.load import read_yaml
from harness.errors import ConfigError, HarnessError
from harness.results.paths import home
from harness.safe_text import lacks_password, masked, with_password

# Set only if the user has not set them: a server that is down must delay a study by seconds, not minutes.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a printed line for each run would break the progress bars
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a logged model must not depend on files of the current folder
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# What MLflow's client reads itself and uses for whatever server it is told.
_CREDENTIALS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)


class TrackingError(HarnessError):
    """MLflow cannot be used with these settings; the message says what to change."""


class TrackingUnavailable(TrackingError):
    """MLflow does not answer now. Nothing is lost: a later `catch_up` sends the events."""


def prepare_environment() -> None:
    """Set the variables that MLflow reads at import: short timeouts, and no telemetry unless the user wants it."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("DO_NOT_TRACK", "true")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def tracking_address(configured: str | None = None) -> str:
    """Return the MLflow address: MLFLOW_TRACKING_URI, otherwise the study's `tracking_uri`, otherwise <home>/mlflow.db.

    The caller vouches for the address: see `address_of` for that of a stored study. If its password is masked,
    MLFLOW_TRACKING_PASSWORD is put in.

    Raises:
        TrackingError: the address is a folder, and MLflow no longer writes to folders.
        ConfigError: the address lacks its password, and MLFLOW_TRACKING_PASSWORD is not set.
    """
    address = (os.environ.get("MLFLOW_TRACKING_URI") or configured or default_address()).strip()
    if lacks_password(address):
        address = _insert_password(address)
    scheme = urlsplit(address).scheme
    if scheme in ("", "file"):
        raise TrackingError(
            f"the MLflow address must be a server (http://...) or a database (sqlite:///...), but got "
            f"{masked(address)!r}; leave tracking_uri and MLFLOW_TRACKING_URI out for {home().name}/mlflow.db."
        )
    return address


def _insert_password(address: str) -> str:
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    complete = with_password(address, password) if password else None
    if complete is None:
        raise ConfigError(
            f"the password of the MLflow address {address} is not stored with the study, but it is needed here: set "
            "MLFLOW_TRACKING_PASSWORD, or the whole address as MLFLOW_TRACKING_URI."
        )
    return complete


def address_of(stored: str | None) -> str:
    """Return the MLflow address of an existing study.

    A stored study may be from someone else, so its address is used only if the user gave it himself, in
    MLFLOW_TRACKING_URI or in a file of studies/, or if nothing of the user's can be lost there: it is a server, and
    there is no password or token that MLflow's client would send to it.

    Args:
        stored: the stored study's `tracking_uri`, without a password.

    Raises:
        ConfigError: only the stored study names the address, and a password would be sent there or a file be written.
        TrackingError: as `tracking_address`.
    """
    if os.environ.get("MLFLOW_TRACKING_URI") or stored is None:
        return tracking_address()
    given = given_in_studies("tracking_uri", stored)
    if given is None and (why := _risk(stored)) is not None:
        raise ConfigError(
            f"the MLflow address {masked(stored)} is not used, because only the stored study names it, and {why}: if "
            "it is yours, set it with its password as MLFLOW_TRACKING_URI, or name it as tracking_uri in a file of "
            "studies/; if it is not, set MLFLOW_TRACKING_URI to your own."
        )
    return tracking_address(given or stored)


def _risk(stored: str) -> str | None:
    """Return what speaks against an address that only a stored study names; None if nothing does."""
    if not is_remote(stored):
        return "a database is opened with passwords and files of this machine"
    if lacks_password(stored):
        return "it needs a password"
    held = _credentials(urlsplit(stored).hostname or "")
    return f"{held} would be sent there" if held else None


def _credentials(host: str) -> str | None:
    """Name what MLflow's client would send to any server, so also to this one; None if there is nothing."""
    for name in _CREDENTIALS:
        if os.environ.get(name):
            return name
    if (Path.home() / ".mlflow" / "credentials").exists():
        return "~/.mlflow/credentials"
    try:
        hosts = netrc(os.environ.get("NETRC")).hosts  # None is ~/.netrc
    except (OSError, NetrcParseError):
        return None
    return "the default entry of .netrc" if "default" in hosts and host not in hosts else None


def given_in_studies(key: str, stored: str) -> str | None:
    """Return the address under `key` in one of the user's files in studies/ that is the stored one but for a password.

    Args:
        key: `tracking_uri` or `storage`.
        stored: the address of a stored study, without its password.

    Returns:
        The address as the file has it; None if no file names it. A file that cannot be read counts as missing.
    """
    for path in sorted(Path("studies").glob("*.yaml")):
        with contextlib.suppress(ConfigError):
            given = read_yaml(path).get(key)
            if isinstance(given, str) and masked(given) == stored:
                return given
    return None


def default_address() -> str:
    """Return the address of the default store: one SQLite file in the home folder."""
    return sqlite_address(home() / "mlflow.db")


def sqlite_address(path: Path) -> str:
    """Return the address of a SQLite file, whatever its path contains. Every address of a path is made here."""
    text = quoted = str(path)
    for sign in "%?#":  # they have a meaning in an address; SQLAlchemy accepts a space
        quoted = quoted.replace(sign, quote(sign))
    # MLflow makes the folder of a sqlite:/// address without decoding it: an empty folder of a wrong name. It makes
    # none if the address names the driver, which is the same one.
    return f"sqlite{'' if quoted == text else '+pysqlite'}:///{quoted}"


def sqlite_path(address: str) -> Path | None:
    """Return the file of a SQLite address; None for every other kind, and for a database in memory."""
    scheme, separator, path = address.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    path = unquote(path.partition("?")[0])
    return Path(path) if path and path != ":memory:" else None


def local_path(address: str) -> Path | None:
    """Return the folder of a `file:` address or a plain path; None for every other kind.

    MLflow decodes both, but only an address can have a part after `?` or `#`.
    """
    parts = urlsplit(address)
    return Path(unquote(parts.path if parts.scheme else address)) if parts.scheme in ("", "file") else None


def is_remote(address: str) -> bool:
    """Whether the address is a tracking server; otherwise it is a database that this process opens itself."""
    return urlsplit(address).scheme in ("http", "https")


def answers(address: str, seconds: float = 2.0) -> bool:
    """Whether a server listens at the address; True if a proxy is used, because it cannot be checked then.

    If the port is closed, this takes less than a millisecond, while MLflow's client retries for seconds.

    Args:
        seconds: timeout of the connection.
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
