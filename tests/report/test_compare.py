"""Studies side by side: counted and never pooled, one axis for one objective, and every text stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.comparison import (
    Difference,
    StudySummary,
    comparison_folder,
    differing,
    find_shared_data,
    find_studies,
    read_study,
)
from harness.analysis.study_data import StudyData
from harness.config.study_names import NAME_RULE
from harness.errors import ConfigError, HarnessError
from harness.report.compare import findings, tables
from harness.report.compare.figures import shorten
from harness.report.compare.page import panels, render, values, write_comparison
from harness.results.paths import StudyFolder, reports

MakeStudy = Callable[..., StudyFolder]
HOSTILE = "<img src=x onerror=alert(1)>"


def entry(
    name: str,
    outcome: str | None = "fine_tuning",
    difference: float = 0.02,
    objective: str = "balanced_accuracy",
    **changes: Any,
) -> StudySummary:
    """A study as `read` returns it, with a verdict that says what is asked for."""
    verdict = {
        "outcome": outcome,
        "difference": difference,
        "ci95": [difference - 0.01, difference + 0.01],
        "seeds": 3,
        "probability_fine_tuning_better": 0.9,
        "equivalence": 0.01,
        "test_looks": 1,
        "sentence": "",
    }
    side = {"trials": {"complete": 3, "pruned": 1}, "test_mean": 0.8, "test_ci95": [0.7, 0.9], "seconds_alone": 2.0}
    config = {"backbone": "resnet18", "unfreeze_depth": 2, "head_lr": 1e-3, "backbone_lr": None}
    found = {
        "schema": 1,
        "study": name,
        "objective": objective,
        "verdict": verdict if outcome else None,
        "verdict_reason": None if outcome else "The confirmation has not begun.",
        "data": {
            "name": f"{name} images",
            "rendered": False,
            "images": 600,
            "classes": ["a", "b"],
            "groups": None,
            "split": {"train": 400, "validation": 100, "test": 100},
            "digest": f"digest of {name}",
        },
        "strategies": {"feature_extraction": side, "fine_tuning": side | {"seconds_alone": 5.0}},
        "recommendation": {"strategy": "fine_tuning", "config": config} if outcome else None,
        "seconds_spent": 60.0,
        "environment": {"torch": "2.15.0", "device": "cpu", "threads": 2, "commit": "4d2e8b1"},
    }
    known = {"equivalence": 0.01, "looks": 1, "last_session": "2026-11-21T09:00:00+00:00", "running": False}
    rows = frozenset(range(100)) if outcome else None
    made = StudySummary(name, found, **known, file={"seed": 0}, fingerprint={}, test_rows=rows)  # type: ignore[arg-type]
    return replace(made, **changes)


def with_data(made: StudySummary, **facts: Any) -> StudySummary:
    return replace(made, summary={**made.summary, "data": {**made.summary["data"], **facts}})


def with_environment(made: StudySummary, **facts: Any) -> StudySummary:
    return replace(made, summary={**made.summary, "environment": {**made.summary["environment"], **facts}})


@pytest.mark.parametrize(
    ("studies", "told"),
    [
        (
            [entry("cells", difference=0.029), entry("tissue", difference=0.011), entry("soil", "undecided")],
            "Fine-tuning is better in 2 of 3 studies (cells most, by 2.9 points of balanced accuracy) "
            "and 1 is undecided.",
        ),
        (
            [entry("cells", difference=0.021), entry("tissue", "feature_extraction", -0.012)],
            "Fine-tuning is better in 1 of 2 studies (cells, by 2.1 points of balanced accuracy) "
            "and feature extraction is better in 1 (tissue, by 1.2 points of balanced accuracy).",
        ),
        (
            [entry("a", difference=0.02), entry("b", difference=0.02)],
            "Fine-tuning is better in both studies (a and b, by 2.0 points of balanced accuracy).",
        ),
        ([entry(name, "equal", 0.0) for name in "abc"], "The two strategies are practically equal in all 3 studies."),
        ([entry("a", "undecided"), entry("b", "undecided")], "Both studies are undecided."),
        ([entry("a", None), entry("b", None), entry("c", None)], "All 3 studies have no verdict."),
        (
            [entry("a", "equal"), entry("b", "undecided"), entry("c", None), entry("d", "undecided")],
            "The two strategies are practically equal in 1 of 4 studies, 2 are undecided and 1 has no verdict.",
        ),
    ],
    ids=["gain", "both ways", "a tie", "equal", "undecided", "none", "nothing decided"],
)
def test_the_sentence_counts_the_verdicts(studies: list[StudySummary], told: str) -> None:
    assert findings.sentence(studies) == told


def test_gains_in_different_metrics_are_not_ranked_against_each_other() -> None:
    studies = [
        entry("cells", difference=0.029),
        entry("tissue", difference=0.05),
        entry("soil", difference=0.3, objective="log_loss"),
        entry("sky", difference=0.4, objective="log_loss"),
    ]
    told = "(tissue most, by 5.0 points of balanced accuracy; sky most, by 0.400 nats of log-loss)"
    assert told in findings.sentence(studies)


def test_training_from_scratch_that_beat_both_is_told() -> None:
    best = entry("soil")
    best = replace(best, summary={**best.summary, "recommendation": {"strategy": "from_scratch", "config": {}}})
    assert findings.sentence([entry("cells"), best]).endswith("In soil training from scratch was better than both.")
    assert "scratch" not in findings.sentence([entry("cells"), entry("soil")])


def test_different_objectives_are_never_on_one_axis_or_in_one_column() -> None:
    studies = [entry("cells"), entry("soil", objective="auroc"), entry("tissue"), entry("sky", objective="auroc")]
    found = {panel.objective: panel for panel in panels(studies)}
    assert list(found) == ["balanced_accuracy", "auroc"]
    for objective, names in {"balanced_accuracy": {"cells", "tissue"}, "auroc": {"soil", "sky"}}.items():
        panel = found[objective]
        assert {row[0].text for row in panel.table.rows} == names
        assert panel.pictures is not None
        for drawn in panel.pictures:
            for made in studies:
                assert (f">{made.name}<" in drawn.svg) == (made.name in names)
                assert (f"{made.name}: +" in drawn.alt) == (made.name in names)
    assert "points of balanced accuracy" in found["balanced_accuracy"].table.columns[2][0]
    assert "of AUROC" in found["auroc"].table.columns[2][0]


def test_the_figure_tells_difference_interval_outcome_and_zone_of_each_study() -> None:
    [panel] = panels([entry("cells", difference=0.029), entry("soil", "undecided", -0.004, equivalence=0.03)])
    assert panel.pictures is not None
    said = panel.pictures[0].alt
    assert "cells: +2.9 points of balanced accuracy, 95 % interval: 1.9 to 3.9, fine-tuning better; ± 1.0" in said
    assert "soil: −0.4 points of balanced accuracy, 95 % interval: −1.4 to 0.6, undecided; ± 3.0 counts" in said


def test_a_study_that_decides_is_filled_and_another_is_hollow() -> None:
    def marks(outcome: str) -> set[str]:
        [panel] = panels([entry("cells", outcome, 0.02)])
        assert panel.pictures is not None
        return set(
            re.findall(r'fill="(var\(--[a-z-]+\))" stroke="var\(--(?:surface|fine-tuning)\)"', panel.pictures[0].svg)
        )

    assert "var(--fine-tuning)" in marks("fine_tuning")
    assert "var(--fine-tuning)" not in marks("undecided")
    assert "var(--surface)" in marks("undecided")


def test_a_study_without_a_verdict_keeps_its_row_and_says_why(make_study: MakeStudy) -> None:
    make_study("cells", card={"digest": "a"})
    make_study("soil", until="confirmation", session=False, card={"digest": "b"})
    page = write_comparison(["cells", "soil"]).read_text(encoding="utf-8")
    assert "soil: no verdict" in page
    assert "16 of 16 trials are finished so far, and the confirmation has not begun." in page
    assert "1 has no verdict." in page


def test_headings_are_computed_from_the_studies() -> None:
    studies = [entry("cells"), entry("soil", "undecided"), entry("sky", None)]
    assert findings.results(studies) == "Balanced accuracy: 1 of 3 decided, with intervals of ± 1.0 points"
    assert findings.results([entry("sky", None)]) == "Balanced accuracy: no verdict yet"
    assert findings.costs(studies) == "One fine-tuning takes 2.5 times the device seconds of one feature extraction"
    assert findings.recommended(studies) == "Recommended: fine-tuning in 2 of 3, always with resnet18"
    assert findings.data(studies) == "3 data sets, 600 images"
    assert findings.data([entry("a"), with_data(entry("b"), images=1200)]) == "2 data sets, 600 to 1,200 images"


def test_fields_that_differ_are_found_at_any_depth_and_lists_as_a_whole() -> None:
    one = {"seed": 0, "search": {"head_lr": {"low": 1e-4, "log": True}, "backbone": ["a", "b"]}, "ema": None}
    two = {"seed": 0, "search": {"head_lr": {"low": 1e-3, "log": True}, "backbone": ["a"]}, "ema": None, "head": "mlp"}
    assert differing([one, two]) == [
        Difference("search.head_lr.low", (1e-4, 1e-3)),
        Difference("search.backbone", (["a", "b"], ["a"])),
        Difference("head", (None, "mlp")),
    ]
    assert differing([one, one]) == []


def test_studies_of_the_same_images_are_named_with_what_differs(make_study: MakeStudy) -> None:
    names = ["first", "second", "other"]
    make_study("first")
    make_study("second", study={"seed": 3, "trials": 9})
    make_study("other", card={"digest": "another"})
    [group] = find_shared_data([read_study(folder) for folder in find_studies(names)])
    assert group.names == ("first", "second")
    assert (group.test_images, group.same_test) == (288, True)
    assert {row.key: row.values for row in group.file} == {"seed": (0, 3), "trials": (8, 9)}
    assert group.environment == []
    page = write_comparison(names).read_text(encoding="utf-8")
    assert "first and second share their 288 test images" in page
    assert "first and second: the same data; 2 keys of the study file differ" in page


def test_what_differs_in_environment_weights_and_precision_is_named() -> None:
    one = with_environment(entry("old", fingerprint={"precision": "float32", "weights": {"resnet18": "aa"}}))
    two = with_environment(
        entry("new", fingerprint={"precision": "bfloat16", "weights": {"resnet18": "aa", "vgg11": "bb"}}),
        torch="2.16.0",
        threads=4,
    )
    [group] = find_shared_data([with_data(made, digest="same") for made in (one, two)])
    assert {row.key: row.values for row in group.environment} == {
        "torch": ("2.15.0", "2.16.0"),
        "threads": (2, 4),
        "precision": ("float32", "bfloat16"),
    }
    assert findings.sharing(group) == "old and new: the same data; 3 facts of the environment differ"
    assert "compare the ratios" in findings.machines([one, two])
    assert "compare the ratios" not in findings.machines([one, one])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (frozenset(range(100)), "share their 100 test images"),
        (frozenset(range(60, 160)), "share their data, with 40 test images in common"),
        (frozenset(range(200, 300)), "share their data, with no test image common to all"),
        (None, "share their data, so their results would be"),
    ],
    ids=["all", "some", "none", "not scored"],
)
def test_it_is_told_how_many_test_images_are_shared(rows: frozenset[int] | None, told: str) -> None:
    pair = [with_data(made, digest="same") for made in (entry("a"), entry("b", test_rows=rows))]
    [group] = find_shared_data(pair)
    assert f"a and b {told}" in findings.dependence(group)


def test_studies_without_a_data_card_are_not_taken_for_the_same_data() -> None:
    assert find_shared_data([with_data(entry(name), digest=None) for name in "ab"]) == []


def test_rendered_images_are_named_where_some_are_real() -> None:
    made = with_data(entry("drawn"), rendered=True)
    assert findings.rendered([made, entry("real")]) == "Rendered images, not real cells in drawn."
    assert findings.rendered([made]) == "Rendered images, not real cells."
    assert findings.rendered([entry("real")]) == ""


def test_cells_are_sorted_by_their_value_and_not_by_their_text() -> None:
    [row] = tables.results([entry("cells", difference=0.029)], "balanced_accuracy").rows
    assert (row[2].text, row[2].small, row[2].value) == ("+2.9", "1.9 to 3.9", 0.029)
    page = render([entry("cells", difference=0.029), entry("soil")])
    assert '<td class="n" data-value="0.029">+2.9<small>1.9 to 3.9</small></td>' in page
    assert page.count('class="small sortable') == 4


def test_hostile_names_stay_text(make_study: MakeStudy) -> None:
    card = {"name": HOSTILE, "source": HOSTILE}
    make_study("one", card=card, study={"description": HOSTILE}, until="search", done=1)
    make_study("two", card=card, until="search", done=1)
    pages = [
        write_comparison(["one", "two"]).read_text(encoding="utf-8"),
        render([with_data(entry(name), digest="same") for name in (HOSTILE, "{{ 7*7 }}$x^2$")]),
    ]
    for page in pages:
        assert "<img" not in page
        assert page.count("&lt;img src=x") >= 3
        assert page.count("<script>") == 1
    assert "{{ 7*7 }}$x^2$" in pages[1]


def test_no_path_of_the_machine_is_told(make_study: MakeStudy) -> None:
    for name, folder in {"one": "/home/someone/cells", "two": "/home/someone/other"}.items():
        source = {"data": {"source": {"folder": folder}}, "weights": f"/home/someone/{name}.pt"}
        made = make_study(name, study=source, until="search", done=4)
    page = write_comparison(["one", "two"])
    text = page.read_text(encoding="utf-8")
    assert "…/one.pt" in text
    for path in page.parent.iterdir():
        assert "someone" not in path.read_text(encoding="utf-8"), path.name
        assert str(made.path.parent) not in path.read_text(encoding="utf-8"), path.name


def test_the_policy_lets_in_only_what_is_hashed_and_nothing_is_loaded() -> None:
    page = render([entry("cells"), entry("soil")])
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(r'\s(?:src|srcset|style|on\w+)="', page)
    assert all(address.startswith("#") for address in re.findall(r'href="([^"]*)"', page))
    assert "url(" not in re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0]


def test_identifiers_are_unique_and_figures_described() -> None:
    page = render(
        [entry("cells"), entry("soil", objective="log_loss"), with_data(entry("sky"), digest="digest of cells")]
    )
    names = re.findall(r'\sid="([^"]*)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'aria-labelledby="([^"]*)"', page)) <= set(names)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(names)
    drawn = re.findall(r"<svg [^>]*>", page)
    assert len(drawn) == 6
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in drawn)


def test_compare_json_holds_the_summary_of_each_study(make_study: MakeStudy) -> None:
    folders = [make_study("one"), make_study("two", card={"digest": "other"})]
    page = write_comparison(["two", "one"])
    found = json.loads((page.parent / "compare.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1
    assert found["sentence"] in page.read_text(encoding="utf-8")
    assert found["shared_data"] == []
    for stored, folder in zip(found["studies"], reversed(folders), strict=True):
        told = json.loads(json.dumps(StudyData.read(folder).summary))
        assert {name: stored[name] for name in told} == told
        sides = told["strategies"]
        ratio = sides["fine_tuning"]["seconds_alone"] / sides["feature_extraction"]["seconds_alone"]
        assert stored["cost_ratio"] == pytest.approx(ratio)
        assert (stored["trials"], stored["test_looks"]) == (16, 1)
    assert values([entry("a")])["studies"][0]["study"] == "a"
    assert sorted(path.name for path in page.parent.iterdir()) == ["compare.json", "index.html"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "two names are needed, but got 0"),
        (["one"], "two names are needed, but got 1"),
        (["one", "one"], "'one' is named 2 times"),
        (["one", "nothing"], "there is no study 'nothing' here"),
        (["one", "../runs/one"], "there is no study '../runs/one' here"),
    ],
)
def test_names_that_make_no_comparison_are_refused_before_anything_is_written(
    make_study: MakeStudy, names: list[str], told: str
) -> None:
    make_study("one", until="search", done=0)
    make_study("two", until="search", done=0)
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        write_comparison(names)
    assert error.value.exit_code == 2
    assert "there are: one, two" in str(error.value)
    assert not reports().exists()


def test_a_damaged_log_is_named_with_its_study(make_study: MakeStudy) -> None:
    make_study("one", until="search", done=1)
    damaged = make_study("two", until="search", done=1).events
    lines = damaged.read_bytes().splitlines(keepends=True)
    damaged.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    with pytest.raises(HarnessError, match=r"study two: events\.jsonl is damaged"):
        write_comparison(["one", "two"])
    assert not reports().exists()


def test_a_comparison_has_a_folder_that_no_study_can_have() -> None:
    def folder(names: Sequence[str]) -> Path:
        return comparison_folder(names).relative_to(reports())

    assert str(folder(["one", "two"])) == "compare+one+two"
    assert folder(["one", "two"]) != folder(["two", "one"])
    assert not NAME_RULE.fullmatch(str(folder(["one", "two"])))
    long = [f"{'x' * 60}{number}" for number in range(5)]
    assert len(str(folder(long))) == 120
    assert folder(long) != folder([*long[:4], "another"])


def test_a_long_name_loses_its_middle() -> None:
    assert shorten("microscopy", 10) == "microscopy"
    assert shorten("microscopy-2026-11", 10) == "micr…26-11"
