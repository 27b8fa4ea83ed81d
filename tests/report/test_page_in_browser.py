"""The page in a real headless Chromium: no error, nothing loaded, light and dark, narrow and wide."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, visit, without_policy

from harness.analysis.wording import DASH

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: the page is not opened in a browser"
)

# Stands in for a person: waits, sorts, filters, and notes down what it sees.
VISITOR = """
const rows = () => Array.from(document.querySelectorAll("#trial-table tbody tr:not([hidden])"));
const cells = (n) => rows().map((row) => row.cells[n].textContent.trim());
const heads = Array.from(document.querySelectorAll("#trial-table thead th"));
const seen = { states: cells(2) };
heads[3].querySelector("button").click();
seen.scores = cells(3); seen.order = heads[3].getAttribute("aria-sort");
heads[3].querySelector("button").click();
seen.turned = cells(3);
const field = document.getElementById("filter");
field.value = "Fine-TUNING pruned"; field.dispatchEvent(new Event("input"));
seen.filtered = cells(2); seen.shown = document.getElementById("shown").textContent;
const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.loaded = loaded.filter((name) => !name.startsWith("data:"));
seen.overflow = document.documentElement.scrollWidth - window.innerWidth;
seen.surface = getComputedStyle(document.body).backgroundColor;
seen.ink = getComputedStyle(document.querySelector("#depth svg text") || document.body).fill;
seen.broken = Array.from(document.images).filter((image) => !image.complete || !image.naturalWidth).length;
const note = document.createElement("pre");
note.id = "seen"; note.textContent = JSON.stringify(seen); document.body.append(note);
"""


def with_visitor(page: Path, folder: Path) -> Path:
    """A copy of the page that the visitor may enter: without its policy, which would shut the visitor out."""
    return without_policy(page, folder / "visited.html", VISITOR)


def seen_by(dom: str) -> dict[str, Any]:
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the visitor noted nothing down"
    values: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return values


def test_the_page_opens_under_its_own_policy_without_a_word_in_the_console(
    finished_report: Path, tmp_path: Path
) -> None:
    dom, console = visit(finished_report / "index.html", tmp_path / "profile")
    assert console == []
    assert re.search(r'<output id="shown"[^>]*>16 of 16</output>', dom), "its script did not run"


def test_a_script_that_the_policy_does_not_name_is_stopped(finished_report: Path, tmp_path: Path) -> None:
    text = (finished_report / "index.html").read_text(encoding="utf-8")
    page = tmp_path / "changed.html"
    page.write_text(text.replace("</body>", "<script>document.title = 'changed'</script></body>"), encoding="utf-8")
    dom, console = visit(page, tmp_path / "profile")
    assert "<title>changed</title>" not in dom
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)], ids=["narrow-light", "wide-dark"])
def test_it_sorts_filters_fits_and_loads_nothing(finished_report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    page = with_visitor(finished_report / "index.html", tmp_path)
    dom, console = visit(page, tmp_path / "profile", *flags, width=width)
    seen = seen_by(dom)
    assert console == []
    assert seen["loaded"] == []
    assert seen["overflow"] <= 0
    assert seen["broken"] == 0
    assert len(seen["states"]) == 16

    scores = [float(text.removesuffix(" %")) for text in seen["scores"] if text.endswith("%")]
    assert seen["order"] == "descending"
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 3
    assert [text for text in seen["turned"] if text.endswith("%")] == seen["scores"][: len(scores)][::-1]
    assert seen["scores"][len(scores) :] == seen["turned"][len(scores) :] == [DASH] * (16 - len(scores))
    assert seen["filtered"] == ["pruned"]
    assert seen["shown"] == "1 of 16"

    surface, ink = (sum(int(part) for part in re.findall(r"\d+", seen[name])[:3]) for name in ("surface", "ink"))
    assert (surface < 150 < ink) if dark else (ink < 400 < surface)


# Notes down what holds more than it shows: on paper nobody can scroll.
READER = """
const hiding = Array.from(document.querySelectorAll("pre, .scroll"))
  .filter((box) => getComputedStyle(box).overflowX !== "visible" || box.scrollWidth > box.clientWidth + 1);
const said = hiding.map((box) => `${box.scrollWidth} in ${box.clientWidth}: ${box.textContent.trim().slice(0, 60)}`);
const note = document.createElement("pre");
note.id = "seen"; note.textContent = JSON.stringify({ hiding: said }); document.body.append(note);
"""


def test_nothing_has_to_be_scrolled_on_paper(finished_report: Path, tmp_path: Path) -> None:
    sheet = without_policy(finished_report / "index.html", tmp_path / "sheet.html", READER)
    text = sheet.read_text(encoding="utf-8")
    assert "@media print {" in text
    sheet.write_text(text.replace("@media print {", "@media all {"), encoding="utf-8")  # --dump-dom does not print
    dom, _ = visit(sheet, tmp_path / "profile", width=720)  # about a sheet of A4 between its margins
    assert seen_by(dom)["hiding"] == []


# Looks at a table of which the first rows alone are laid out, sorts it, filters it, asks for the rest.
SKIMMER = """
const cells = (n) => Array.from(document.querySelectorAll("#trial-table tbody tr:not([hidden])"))
  .map((row) => row.cells[n].textContent.trim());
const said = () => document.getElementById("shown").textContent;
const more = document.getElementById("more");
const field = document.getElementById("filter");
const ask = (text) => { field.value = text; field.dispatchEvent(new Event("input")); };
const seen = { first: cells(0).length, said: said(), offered: !more.hidden };
const score = document.querySelectorAll("#trial-table thead th")[3].querySelector("button");
score.click(); seen.best = cells(3);
ask("fine-tuning"); seen.filtered = said();
ask("pruned"); seen.few = said(); seen.few_offered = !more.hidden;
ask(""); more.click(); seen.all = cells(3); seen.all_said = said(); seen.all_offered = !more.hidden;
const note = document.createElement("pre");
note.id = "seen"; note.textContent = JSON.stringify(seen); document.body.append(note);
"""


def test_of_many_trials_the_first_are_shown_until_more_is_asked_for(finished_report: Path, tmp_path: Path) -> None:
    page = without_policy(finished_report / "index.html", tmp_path / "skimmed.html", SKIMMER)
    text = page.read_text(encoding="utf-8")
    assert "const FIRST = 1000;" in text
    page.write_text(text.replace("const FIRST = 1000;", "const FIRST = 5;"), encoding="utf-8")
    seen = seen_by(visit(page, tmp_path / "profile")[0])
    assert (seen["first"], seen["said"], seen["offered"]) == (5, "16 of 16, the first 5 shown", True)
    assert (seen["filtered"], seen["few_offered"]) == ("8 of 16, the first 5 shown", False)
    assert re.fullmatch(r"\d of 16", seen["few"])
    assert (len(seen["all"]), seen["all_said"], seen["all_offered"]) == (16, "16 of 16", False)
    assert seen["best"] == seen["all"][:5], "the first five in the order that was asked for"
