"""The page shows what was found, at every stage, and whatever names say, they stay text."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.study_data import StudyData
from harness.analysis.verdict_text import sentence
from harness.config.parameters import PARAMETERS
from harness.report.page import write_report
from harness.report.sections.hyperparameters import OWN_SECTION
from harness.results.event_types import TrialFinished, VerdictReached
from harness.results.events import EventLog, read_events
from harness.results.paths import StudyFolder
from harness.results.records import TrialJob
from harness.results.trial_id import TrialId

MakeStudy = Callable[..., StudyFolder]


class Page(HTMLParser):
    """Elements, visible text, and what a page must not have twice or load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inline: dict[str, str] = {}
        self._inside = ""
        self.html = html
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script"):
            self.inline[self._inside] = data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


@pytest.fixture
def finished(finished_report: Path) -> Page:
    return Page((finished_report / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def found(finished_report: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((finished_report / "summary.json").read_text())
    return values


def page_of(folder: StudyFolder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_it_opens_with_the_verdict(finished: Page, found: dict[str, Any]) -> None:
    sentence = found["verdict"]["sentence"]
    assert sentence in finished.text
    assert finished.text.index(sentence) < finished.text.index("on the test split")


def test_the_facts_of_the_study_stand_on_the_page(finished: Page, found: dict[str, Any]) -> None:
    text = finished.text
    for strategy in found["strategies"].values():
        assert f"{strategy['test_mean'] * 100:.1f} %" in text
        assert f"{strategy['best_validation'] * 100:.1f} %" in text
    for fact in ("models:/m-4c1f", "4d2e8b1", "3f2a9c51d0", "1,440 images", "make study NAME=microscopy", "torch"):
        assert fact in text
    assert "rendered_cells" in text
    assert "try: - strategy: fine_tuning" in text


def test_every_result_on_rendered_images_says_so(finished: Page) -> None:
    sections = re.findall(r"<section.*?</section>", finished.html, re.DOTALL)
    for section in sections:
        if "<figure>" in section or " %</b>" in section:
            assert "Rendered images, not real cells." in section
    assert sum("Rendered images" in section for section in sections) >= 8


def test_real_images_are_not_called_rendered(make_study: MakeStudy) -> None:
    assert (
        "Rendered images" not in page_of(make_study(until="search", done=2, card={"rendered": False, "notes": []})).html
    )


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$x^2$", 'a "quoted" & long class name', "=cmd()"])
def test_a_hostile_class_name_is_shown_as_text(finished: Page, name: str) -> None:
    assert name in finished.text
    assert sum(tag == "script" for tag, _ in finished.tags) == 1
    assert "<script>alert" not in finished.html


def test_hostile_texts_anywhere_stay_text(make_study: MakeStudy) -> None:
    payload = "</style></script><img src=x onerror=alert(1)>{{ 7*7 }}"
    study = {
        "description": payload,
        "report": {"title": payload},
        "try": [{"strategy": "fine_tuning", "note": payload}],
    }
    card = {
        "name": payload,
        "source": payload,
        "notes": [payload],
        "warnings": [payload],
        "kinds": {payload: 3},
        "group_rule": payload,
    }
    page = page_of(make_study(until="search", done=1, study=study, card=card))
    assert page.text.count("{{ 7*7 }}") >= 4
    assert "49" not in page.text.split("{{ 7*7 }}")[0][-4:]
    assert not any("onerror" in attrs for _, attrs in page.tags)


def test_the_policy_names_the_hashes_of_what_is_inline(finished: Page) -> None:
    page = finished
    policy = next(attrs["content"] or "" for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inline[tag].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert page.values("style") == []
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_nothing_is_loaded_from_outside(finished: Page) -> None:
    page = finished
    for attribute in ("src", "href", "srcset", "action", "data"):
        assert all(value.startswith(("data:image/", "#")) for value in page.values(attribute))
    assert "url(" not in page.inline["style"]
    assert "@import" not in page.inline["style"]


def test_identifiers_are_unique_and_references_hit(make_study: MakeStudy) -> None:
    page = page_of(make_study(strategies=("feature_extraction", "fine_tuning", "from_scratch")))
    names = page.values("id")
    assert len(names) == len(set(names))
    assert {value[1:] for value in page.values("href")} <= set(names)
    assert {value[5:-1] for value in page.values("clip-path")} <= set(names)
    assert set(page.values("aria-labelledby")) <= set(names)


def test_every_figure_has_an_alternative_text(finished: Page) -> None:
    page = finished
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert len(drawings) >= 9
    assert all(attrs.get("role") == "img" and len(attrs.get("aria-label") or "") > 30 for attrs in drawings)


def test_figures_take_their_colours_from_the_page(finished: Page) -> None:
    page = finished
    colours = [value for name in ("fill", "stroke") for value in page.values(name)]
    assert not [value for value in colours if value.startswith("#")]
    assert {value[4:-1] for value in colours if value.startswith("var(")} <= set(
        re.findall(r"(--[\w-]+):", page.inline["style"])
    )


def test_images_of_the_data_are_shown_where_the_study_allows_it(finished: Page) -> None:
    assert sum(tag == "img" for tag, _ in finished.tags) == 24


def test_no_image_of_the_data_is_shown_where_the_study_forbids_it(make_study: MakeStudy) -> None:
    page = page_of(make_study(until="search", done=0, study={"report": {"images": False}}))
    assert not [tag for tag, _ in page.tags if tag in ("img", "image")]
    assert "data:image" not in page.html


def test_no_path_of_the_machine_is_told(make_study: MakeStudy) -> None:
    study = {"data": {"source": {"folder": "/home/someone/cells"}}, "weights": "/home/someone/w.pt"}
    folder = make_study(until="search", done=4, study=study)
    write_report(folder)
    for path in folder.report.iterdir():
        assert "someone" not in path.read_text(), path.name
        assert str(folder.path.parent) not in path.read_text(), path.name
    assert "DATA=..." in (folder.report / "index.html").read_text()


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"until": "search", "done": 0, "session": False}, "No trial has finished yet."),
        ({"until": "search", "done": 3, "session": False}, "in progress: 6 of 16 trials"),
        ({"until": "confirmation", "session": False}, "No verdict yet."),
        ({"state": "failed"}, "No verdict. No trial of feature extraction completed (8 failed)."),
        ({"state": "pruned"}, "16 trials"),
        ({"state": "diverged"}, "8 diverged"),
        ({"strategies": ("fine_tuning",)}, "Best configuration: fine-tuning"),
        ({"study": {"objective": "log_loss"}}, "nats of log-loss"),
        ({"study": {"objective": "mcc"}, "groups": None}, "288 test images)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_stage_of_a_study_has_its_page(make_study: MakeStudy, stage: dict[str, Any], words: str) -> None:
    assert words in page_of(make_study(**stage)).text


def test_images_that_a_limit_left_out_are_not_counted_as_used(make_study: MakeStudy, finished: Page) -> None:
    assert "used)" not in finished.text
    folder = make_study(until="search", done=1)
    card = json.loads(folder.data_card.read_text(encoding="utf-8"))
    card["split"]["unused"] = 1200
    folder.data_card.write_text(json.dumps(card), encoding="utf-8")
    assert f"{card['images']:,} images ({card['images'] - 1200:,} used)" in page_of(folder).text


def test_a_study_without_a_data_card_has_a_page(make_study: MakeStudy) -> None:
    folder = make_study(until="search", done=0)
    folder.data_card.unlink()
    folder.thumbnails.unlink()
    assert "No verdict" in page_of(folder).text


def test_every_searched_parameter_has_its_picture_and_its_column(make_study: MakeStudy) -> None:
    vary = {
        name: tuple(dict.fromkeys(parameter.choices[:2])) or ("bundled", "my own")
        if parameter.kind == "choice"
        else ((2, 5, 9, 14) if parameter.kind == "int" else (0.1, 0.2, 0.35, 0.6))
        for name, parameter in PARAMETERS.items()
        if name not in OWN_SECTION
    }
    page = page_of(make_study(trials=12, until="search", vary=vary))
    described = " ".join(page.values("aria-label"))
    heads = page.html[page.html.index('id="trial-table"') :].split("</thead>")[0]
    for name in PARAMETERS:
        assert PARAMETERS[name].label in heads, name
        if name not in OWN_SECTION:
            assert f"by {PARAMETERS[name].label}." in described or f"against {PARAMETERS[name].label}:" in described, (
                name
            )
    assert "No clear effect of" in page.text


def test_a_parameter_that_matters_has_a_heading_of_its_own(make_study: MakeStudy) -> None:
    # the made-up scores fall from slot to slot by nothing but chance, so the trend is made here
    folder = make_study(trials=20, until="search", vary={"label_smoothing": (0.0, 0.1)})
    events = read_events(folder.events)
    folder.events.unlink()
    log = EventLog(folder.events)
    for event in events:
        data = event.data
        if isinstance(data, TrialFinished) and data.record.state == "complete":
            smoothing = round(1 - (data.record.score or 0.0), 3)
            config = dataclasses.replace(data.record.config, label_smoothing=smoothing)
            job = dataclasses.replace(data.record.job, config=config)
            data = TrialFinished(dataclasses.replace(data.record, job=job))
        log.append(data)
    log.close()
    assert "Label smoothing: higher values scored worse in feature extraction" in page_of(folder).text


def confirm(folder: StudyFolder, points: dict[tuple[str, int], list[float]]) -> None:
    """Add confirmation runs of these (policy, batch size) with these scores by seed."""
    log = EventLog(folder.events)
    template = next(e.record for e in log.of(TrialFinished) if e.record.state == "complete")
    for (policy, size), scores in points.items():
        config = dataclasses.replace(
            template.config,
            batchnorm=policy,
            batch_size=size,
            strategy="fine_tuning",  # type: ignore[arg-type]
        )
        for seed, score in enumerate(scores):
            name = str(TrialId("confirmation", "fine_tuning", seed, f"{policy}{size}"))
            job = TrialJob(name, "confirmation", "fine_tuning", seed, config, seed, "search")
            log.append(TrialFinished(dataclasses.replace(template, job=job, score=score)))
    log.close()


def test_confirmed_configurations_are_compared_seed_by_seed(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    points = {
        ("frozen", 8): [0.60, 0.62, 0.61, 0.63],
        ("frozen", 64): [0.61, 0.60, 0.62, 0.60],
        ("train_mode", 8): [0.41, 0.42, 0.41, 0.42],
        ("train_mode", 64): [0.59, 0.63, 0.60, 0.61],
    }
    confirm(folder, points)
    page = page_of(folder)
    assert (
        "Fine-tuning, confirmed: frozen, batch size 8 scored best on validation, 1 of the 3 others clearly worse"
        in page.text
    )
    drawn = [text for text in page.values("aria-label") if "of each configuration" in text]
    assert [text.split(":")[0].rpartition(", ")[2] for text in drawn] == ["batch size 8", "batch size 64"]
    assert "frozen 61.5 %; train_mode 41.5 %" in drawn[0]


def test_configurations_that_are_no_full_table_stand_in_one_picture(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    points = {("frozen", 8): [0.6, 0.7], ("frozen", 64): [0.61, 0.70], ("train_mode", 8): [0.62, 0.69]}
    confirm(folder, points)
    page = page_of(folder)
    [drawn] = [text for text in page.values("aria-label") if "of each configuration" in text]
    assert "frozen, batch size 64 65.5 %" in drawn
    assert "none of the 2 others clearly worse" in page.text


def test_winner_and_default_alone_make_no_section_of_their_own(finished: Page) -> None:
    assert "scored best on validation" not in finished.text


def test_what_is_switched_off_is_not_listed(make_study: MakeStudy, finished: Page) -> None:
    off = finished.html.split('id="recommendation"')[1].split("</section>")[0]
    on = page_of(make_study("other", vary={"mixup": (0.4,), "head": ("mlp",)})).html
    on = on.split('id="recommendation"')[1].split("</section>")[0]
    for label in ("mixup (alpha)", "hidden units of the head"):
        assert label in on
        assert label not in off


def test_depths_of_a_single_backbone_are_shown_with_their_share(make_study: MakeStudy) -> None:
    text = page_of(make_study(until="search", vary={"backbone": ("resnet18",)})).text
    assert "their share of resnet18's parameters" in text
    for share in ("75 %", "94 %", "99 %"):
        assert share in text
    assert "their share of" not in page_of(make_study("two", until="search")).text


def test_importances_are_shown_with_their_method(make_study: MakeStudy) -> None:
    folder = make_study(until="search", done=0)
    folder.importance.write_text(
        json.dumps({"fine_tuning": {"fanova": {"trials": 200, "shares": {"head_lr": 0.7, "backbone": 0.3}}}})
    )
    assert "fANOVA: what explains the spread of 200 trials" in page_of(folder).html
    folder.importance.write_text(json.dumps({"fine_tuning": {"fanova": {"head_lr": 0.7}}}))  # as it was written once
    assert "fANOVA" not in page_of(folder).html


def test_the_table_holds_every_trial_and_its_state(make_study: MakeStudy) -> None:
    html = page_of(make_study(trials=9, until="search")).html
    body = html[html.index('id="trial-table"') :]
    assert body.count("<tr><td") == 18
    assert body.count('class="pruned"') == 4
    assert body.count('<abbr title="best') == 2


def test_trials_csv_holds_every_trial(finished_report: Path) -> None:
    with (finished_report / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    assert {row["strategy"] for row in rows} == {"feature_extraction", "fine_tuning"}
    assert float(rows[0]["head_lr"]) == 1e-3


def test_writing_again_replaces_the_files_and_leaves_no_other(make_study: MakeStudy) -> None:
    folder = make_study(until="search", done=2)
    first = write_report(folder).read_text()
    second = write_report(folder).read_text()
    without_time = re.compile(r"made [\d :-]+ UTC")
    assert without_time.sub("", first) == without_time.sub("", second)
    assert sorted(path.name for path in folder.report.iterdir()) == ["index.html", "summary.json", "trials.csv"]


def test_earlier_verdicts_are_kept_on_the_page(make_study: MakeStudy, finished: Page) -> None:
    assert "earlier verdict" not in finished.text
    folder = make_study()
    log = EventLog(folder.events)
    last = log.of(VerdictReached)[-1]
    log.append(dataclasses.replace(last, look=2, verdict={**(last.verdict or {}), "difference": 0.123}))
    log.close()
    page = page_of(folder)
    assert "1 earlier verdict, from fewer trials or seeds" in page.text
    assert page.text.count(sentence(last.verdict or {}, "balanced_accuracy")) == 1
    assert page.text.count("better by 12.3 points") == 1


@pytest.mark.parametrize(("tuned", "outcome"), [(2.8, "undecided"), (4.5, "fine_tuning")])
def test_the_probability_stands_once(make_study: MakeStudy, tuned: float, outcome: str) -> None:
    study = {"confirmation": {"seeds": 3, "equivalence": 0.001}}
    folder = make_study(study=study, skill={"feature_extraction": 2.7, "fine_tuning": tuned})
    assert StudyData.read(folder).summary["verdict"]["outcome"] == outcome
    page = " ".join(write_report(folder).read_text().split())
    answer = page[page.index('id="answer"') :]
    assert answer[: answer.index("</section>")].count("with a probability of") == 1
