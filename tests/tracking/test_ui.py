"""The UI's server, started and stopped as a user does; who reaches it; the bridge when a server goes and comes back."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ui_server import serving

from harness.config.trial import TrialConfig
from harness.errors import ConfigError, ResourceError
from harness.results.paths import home
from harness.tracking import ui, ui_guard
from harness.tracking.address import TrackingUnavailable, sqlite_address
from harness.tracking.mlflow_store import open_client


def stop(process: subprocess.Popen[str], sign: signal.Signals) -> None:
    """Ask it to stop; it ends well, in time, and leaves no process behind."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert family, "the server is a process of its own"
    process.send_signal(sign)
    assert process.wait(20) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def repeated_and_total(path: str) -> tuple[int, int]:
    connection = sqlite3.connect(path)
    try:
        keys = connection.execute("SELECT COUNT(*) FROM metrics GROUP BY run_uuid, key, step").fetchall()
    finally:
        connection.close()
    return sum(count > 1 for (count,) in keys), len(keys)


def check_exactly_once(database: str, trials: int) -> None:
    """Every trial is one finished run with three epochs of eight metrics, six metrics of its own, and no more."""
    path = database.removeprefix("sqlite:///")
    session_seconds = 1
    assert repeated_and_total(path) == (0, trials * (3 * 8 + 6) + session_seconds)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT status, COUNT(*) FROM runs GROUP BY 1").fetchall() == [("FINISHED", trials + 1)]
    connection.close()


def send_until_the_server_goes(study: Any, bridge: Any, config_of: Callable[..., TrialConfig], server: Any) -> None:
    """One trial arrives, the next one has started when the server stops, and two more finish while it is down."""
    study.session()
    study.trial("fine_tuning/1", config_of())
    bridge.catch_up(study.events)
    study.start("fine_tuning/2", config_of(depth=2), slot=2)
    bridge.catch_up(study.events)
    stop(server, signal.SIGTERM)
    began = time.monotonic()
    for slot in (2, 3):
        study.trial(f"fine_tuning/{slot}", config_of(depth=slot), slot=slot)
        with pytest.raises(TrackingUnavailable):
            bridge.catch_up(study.events)
    assert time.monotonic() - began < 3


def test_the_server_opens_on_the_study_and_what_it_missed_arrives_once(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    free_port: int,
) -> None:
    study, address = make_study(), f"http://127.0.0.1:{free_port}"
    study.session()
    make_bridge(study, database).catch_up(study.events)
    client = open_client(database)
    client.rename_experiment("1", "for the paper")
    client.create_experiment("microscopy")  # of another study of this name
    with serving(database, free_port) as (server, said):
        assert f"{address}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=harness" in said[0]
        bridge = make_bridge(study, address)
        bridge.catch_up(study.events)
        parent = bridge._projector.parent.run_id
        assert said[1].endswith(f"{address}/#/experiments/1/runs/{parent}?workflowType=machine_learning")
        send_until_the_server_goes(study, bridge, config_of, server)
    study.end()
    make_bridge(study, database).catch_up(study.events)  # past the server, into its database
    check_exactly_once(database, trials=3)


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back_gets_every_metric_once(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    free_port: int,
) -> None:
    study = make_study()
    bridge = make_bridge(study, f"http://127.0.0.1:{free_port}")
    with serving(database, free_port) as (server, _):
        send_until_the_server_goes(study, bridge, config_of, server)
    with serving(database, free_port) as (server, _):
        assert bridge.catch_up(study.events, retry_now=True) > 0
        study.trial("fine_tuning/4", config_of(depth=4), slot=4)
        study.end()
        bridge.catch_up(study.events)
        stop(server, signal.SIGINT)
    check_exactly_once(database, trials=4)


def asked(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """The status and body of a POST to the server, with these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        sent = {"Content-Type": "application/json", **headers}
        connection.request("POST", path, body=b'{"max_results": 5}', headers=sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_only_this_machine_reaches_the_server_and_no_page_of_elsewhere(
    database: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's checks of Host and Origin stay on, though the environment says otherwise."""
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    monkeypatch.setenv("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "*")
    with serving(database, free_port) as (server, _):
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        heard = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert heard == {"127.0.0.1"}
        search = "/api/2.0/mlflow/experiments/search"
        assert asked(free_port, search)[0] == 200
        assert asked(free_port, search, Origin=f"http://127.0.0.1:{free_port}")[0] == 200
        status, body = asked(free_port, search, Host="evil.example")
        assert (status, b"rebinding" in body) == (403, True)
        status, body = asked(free_port, search, Origin="http://evil.example")
        assert (status, b"Cross-origin" in body) == (403, True)
        stop(server, signal.SIGTERM)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "evil.example"])
def test_another_address_is_refused_unless_asked_twice(
    host: str, database: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, dict[str, str]]] = []

    @contextmanager
    def start(environment: dict[str, str], host: str, *_: Any) -> Iterator[Any]:
        started.append((host, environment))
        yield SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(ui, "_server", start)
    monkeypatch.setattr(ui, "free_port", lambda port, host: port)
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "cells.example")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1 alone.*EXPOSED=1.*--exposed"):
        ui.serve(None, address=database, port=free_port, host=host)
    assert started == []
    (home() / "mlflow-server.log").write_text("")
    with pytest.raises(ResourceError, match="ended by itself"):
        ui.serve(None, address=database, port=free_port, host=host, exposed=True)
    [(listened, environment)] = started
    assert listened == host
    assert "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE" not in environment
    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"] == "cells.example"


@pytest.mark.slow  # a server's start; that the address is handed on is seen above
def test_asked_twice_the_server_listens_where_it_was_asked_to(database: str, free_port: int) -> None:
    with serving(database, free_port, ", host='0.0.0.0', exposed=True") as (server, said):
        assert f"http://127.0.0.1:{free_port}/" in said[0]
        family = psutil.Process(server.pid).children(recursive=True)
        heard = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert heard == {"0.0.0.0"}
        stop(server, signal.SIGINT)


def test_an_address_of_another_machine_is_said(free_port: int) -> None:
    with pytest.raises(ResourceError, match=r"192\.0\.2\.1, or that is no address of this machine"):
        ui.free_port(free_port, "192.0.2.1")


def test_the_command_refuses_another_address_with_2(
    harness: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOST", "0.0.0.0")
    code, _, err = harness("ui")
    assert code == 2
    assert "EXPOSED=1" in err
    assert "Traceback" not in err


def test_the_next_free_port_is_taken_where_the_wanted_one_is_in_use() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        wanted = busy.getsockname()[1]
        assert ui.free_port(wanted) != wanted
    assert ui.free_port(0) > 0
    with pytest.raises(ConfigError, match="65535"):
        ui.free_port(70000)


def test_a_remote_server_is_named_without_its_password_and_nothing_is_started(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    said: list[str] = []
    assert ui.serve("microscopy", address=f"http://me:secret@127.0.0.1:{free_port}", say=said.append) == 0
    assert f"127.0.0.1:{free_port}/#/experiments?workflowType=machine_learning" in said[0]
    assert "secret" not in "".join(said)


def test_without_a_database_there_is_nothing_to_show(tmp_path: Any) -> None:
    with pytest.raises(ResourceError, match="once a study has started"):
        ui.serve("microscopy", address=sqlite_address(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_the_server_module_does_not_import_mlflow() -> None:
    script = "import sys; import harness.tracking.ui, harness.tracking.mlflow_runs; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_guard_ends_its_command_when_its_parent_is_killed(tmp_path: Any) -> None:
    """The command has a child of its own, as MLflow's server has."""
    inner = "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); c.wait()"
    outer = (
        "import subprocess, sys, time\n"
        f"command = [sys.executable, '-I', {ui_guard.__file__!r}, sys.executable, '-c', {inner!r}]\n"
        "guard = subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    last = psutil.Process(int(parent.stdout.readline()))
    family = [last, *last.parents()[:2]]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_the_guard_gives_the_exit_code_of_its_command_and_waits_for_it_after_sigterm() -> None:
    guard = [sys.executable, "-I", ui_guard.__file__, sys.executable, "-c"]
    for code, wanted in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)):
        done = subprocess.Popen([*guard, code], start_new_session=True, stdin=subprocess.PIPE)
        assert done.wait() == wanted
        assert done.stdin is not None
        done.stdin.close()


def test_a_server_that_was_started_with_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ui._stopping() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopped == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
