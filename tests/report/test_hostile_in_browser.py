"""Every text that a page can hold says "run me": the browser runs nothing, asks for nothing, and shows it as text."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, visit, without_policy

from harness.report.compare.page import write_comparison
from harness.report.page import write_report
from harness.results.event_types import (
    ModelLogged,
    SearchFinished,
    SessionStarted,
    StudyCreated,
    TrialFinished,
    VerdictReached,
    from_json,
    to_json,
)
from harness.results.events import EventLog, read_events
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]

# Leaves a mark on the page where anything of it runs, and a request at `listener` where anything is loaded.
MARK = "document.documentElement.setAttribute('data-ran','{token}')"
PAYLOAD = (
    "</title></style></script></svg>\"'><script>" + MARK + '</script><img src="{host}/{token}" onerror="' + MARK + '">'
    '<svg onload="' + MARK + '"><a href="javascript:{token}">{{{{ 7*7 }}}} ${token}$ &#60;b> \x1b[2J\u202e{token}'
)
WIDTH = "document.documentElement.setAttribute('data-overflow', document.documentElement.scrollWidth - innerWidth)"
# What a page cannot do without: names of states, kinds and parameters, times and numbers, which the harness writes.
KEPT = {"trial_id", "kind", "strategy", "state", "config", "started_at", "role", "config_key", "predictions"}
KEPT |= {"outcome", "basis"}
MUST_SHOW = (
    "study.description",
    "study.report.title",
    "study.data.wanted",
    "study.data.split.group",
    "study.weights",
    "study.tracking_uri",
    "card.name",
    "card.source",
    "card.group_rule",
    "card.classes.0.name",
    "card.bit_depth",
    "card.skipped.0.path",
    "card.skipped.0.reason",
    "card.notes.0",
    "trial.reason",
    "trial.warnings.0",
    "session_started.environment.commit",
    "session_started.environment.device",
    "model_logged.uri",
)


class Listener:
    """A web server that answers every request with a script, and notes what was asked for."""

    def __init__(self) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(MARK.format(token="loaded").encode())

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Poison:
    """Puts a payload with a token of its own into every text of a JSON value, and remembers which stands where."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.tokens: dict[str, str] = {}

    def text(self, where: str) -> str:
        token = self.tokens.setdefault(where, f"t{len(self.tokens)}x")
        return PAYLOAD.format(token=token, host=self.host)

    def into(self, value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {
                key: item if key in KEPT else self.into(item, f"{where}.{key}" if where else key)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.into(item, f"{where}.{number}") for number, item in enumerate(value)]
        return self.text(where) if isinstance(value, str) else value


@pytest.fixture
def poisoned(make_study: MakeStudy, listener: Listener) -> tuple[Callable[[str], StudyFolder], Poison]:
    poison = Poison(listener.address)
    return lambda name: poisoned_study(make_study, poison, name), poison


def poisoned_study(make_study: MakeStudy, poison: Poison, name: str) -> StudyFolder:
    """A finished study in whose stored files every text is hostile that a person, a library or the data could give."""
    folder = make_study(name, looks=2)
    stored = json.loads(folder.study_json.read_text())
    own = {"description": "?", "weights": "?", "device": "?", "tracking_uri": "?", "report": {"title": "?"}}
    data = {"wanted": "?", "source": {"folder": "?"}, "split": {"group": "?"}}
    told = poison.into({**own, "data": data}, "study")
    for key in ("report", "data"):
        told[key] = stored["study"][key] | told[key]
    stored["study"] |= told
    stored["study"]["data"]["split"] = {"validation": 0.2, "test": 0.2} | told["data"]["split"]
    stored["fingerprint"] = poison.into(stored["fingerprint"], "fingerprint")
    folder.study_json.write_text(json.dumps(stored))

    card = json.loads(folder.data_card.read_text())
    for key in ("kinds", "converted"):  # whose keys are texts
        card[key] = {poison.text(f"card.{key}"): 3}
    folder.data_card.write_text(json.dumps(poison.into(card, "card")))

    events = read_events(folder.events)
    folder.events.unlink()
    log = EventLog(folder.events)
    for event in events:
        data = to_json(event.data)
        if isinstance(event.data, TrialFinished):
            told = {"reason": "?", "warnings": ["?"], "device": "?", "cache_reason": "?", "precision": "?"}
            data["record"] |= poison.into(told, "trial")
        elif isinstance(event.data, StudyCreated):  # study.json counts only if it is of the log's study
            data |= {"study": stored["study"], "fingerprint": stored["fingerprint"]}
        elif isinstance(event.data, SessionStarted | VerdictReached | ModelLogged | SearchFinished):
            data |= poison.into({k: v for k, v in data.items() if k != "comparisons"}, event.kind)
        log.append(from_json(event.kind, data))
    log.close()
    return folder


def check_inert(page: Path, listener: Listener, tmp_path: Path) -> str:
    """Open the page under its policy and without: what holds must be the escaping, and not the policy alone."""
    dom, console = visit(page, tmp_path / "profile")
    assert console == []
    bare, _ = visit(without_policy(page, tmp_path / "bare.html", WIDTH), tmp_path / "profile")
    for seen in (dom, bare):
        assert 'data-ran="' not in seen, "something ran"
    assert listener.asked == []
    assert re.search(r'data-overflow="(0|-[0-9]+)"', bare), "long names make the page wider than its window"
    assert not re.search(r"[\x1b\u202e]", page.read_text(encoding="utf-8"))
    return dom


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not opened in a browser")
def test_a_page_full_of_payloads_runs_nothing_and_loads_nothing(
    poisoned: tuple[Callable[[str], StudyFolder], Poison], listener: Listener, tmp_path: Path
) -> None:
    make, poison = poisoned
    page = write_report(make("poisoned"))
    dom = check_inert(page, listener, tmp_path)
    text = html.unescape(re.sub(r"<[^>]*>", "", dom))
    hidden = [where for where in MUST_SHOW if f"\\u202e{poison.tokens[where]}" not in text]
    assert not hidden, "shown as text, and whole"
    assert "{{ 7*7 }}" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not opened in a browser")
def test_a_comparison_full_of_payloads_runs_nothing_and_loads_nothing(
    poisoned: tuple[Callable[[str], StudyFolder], Poison], listener: Listener, tmp_path: Path
) -> None:
    make, poison = poisoned
    one, other = make("one"), make("other")
    stored = json.loads(other.study_json.read_text())
    stored["study"]["description"] = poison.text("other.description")
    other.study_json.write_text(json.dumps(stored))
    dom = check_inert(write_comparison([one.name, other.name]), listener, tmp_path)
    text = html.unescape(re.sub(r"<[^>]*>", "", dom))
    for where in ("study.description", "other.description", "card.name"):
        assert poison.tokens[where] in text, where


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not opened in a browser")
def test_the_payload_would_run_and_load_where_it_is_not_escaped(listener: Listener, tmp_path: Path) -> None:
    page = tmp_path / "open.html"
    page.write_text(f"<html><body>{Poison(listener.address).text('x')}</body></html>", encoding="utf-8")
    dom, _ = visit(page, tmp_path / "profile")
    assert 'data-ran="t0x"' in dom
    assert listener.asked == ["/t0x"]


def test_the_machine_readable_files_hold_payloads_as_values_alone(
    poisoned: tuple[Callable[[str], StudyFolder], Poison],
) -> None:
    make, poison = poisoned
    folder = make("poisoned")
    write_report(folder)
    summary = json.loads((folder.report / "summary.json").read_text(encoding="utf-8"))
    assert poison.tokens["card.classes.0.name"] in summary["data"]["classes"][0]
    for name in ("summary.json", "trials.csv"):
        assert not re.search(r"[\x1b\u202e]", (folder.report / name).read_text(encoding="utf-8"))
