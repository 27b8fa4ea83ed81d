"""The verdict rests on stored predictions of the winners, and says what to use."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.analysis.statistics import compare_strategies
from harness.analysis.study_data import StudyData
from harness.analysis.training_cost import cost_ratio
from harness.analysis.verdict import cheaper, conclude
from harness.analysis.verdict_text import sentence
from harness.analysis.wording import STRATEGY
from harness.config.trial import TrialConfig
from harness.results.event_types import TestScored
from harness.results.events import EventLog, of_type, read_events
from harness.results.paths import StudyFolder
from harness.results.study_state import StudyState

MakeStudy = Callable[..., StudyFolder]


def conclusion(folder: StudyFolder) -> dict[str, Any]:
    data = StudyData.read(folder)
    return conclude(data.state, data.winners, data.study)


def said(folder: StudyFolder) -> str:
    """The sentence of the verdict as it stands now."""
    return sentence(conclusion(folder)["verdict"], StudyData.read(folder).study.objective)


def test_the_verdict_is_the_comparison_of_the_winners_predictions(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    found = conclusion(folder)
    winners = {
        scored.strategy: scored.config_key
        for scored in of_type(read_events(folder.events), TestScored)
        if "winner" in scored.role
    }
    stored = {
        name: [np.load(folder.predictions / f"{name}-{key}-{seed}.npz") for seed in range(3)]
        for name, key in winners.items()
    }
    sides = [
        np.stack([file["probabilities"] for file in stored[name]]) for name in ("feature_extraction", "fine_tuning")
    ]
    labels, groups = stored["fine_tuning"][0]["labels"], stored["fine_tuning"][0]["groups"]
    expected = compare_strategies(sides[0], sides[1], labels, groups)
    verdict = found["verdict"]
    assert verdict["difference"] == pytest.approx(expected.difference)
    assert verdict["ci95"] == pytest.approx(expected.ci95)
    assert (verdict["outcome"], verdict["seeds"], verdict["test_looks"]) == ("fine_tuning", 3, 1)
    assert found["verdict_reason"] is None
    assert found["comparisons"][0]["outcome"] == "better"


def test_the_sentence_gives_points_interval_evidence_cost_and_advice(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    verdict = conclusion(folder)["verdict"]
    size, low, high = (f"{value * 100:.1f}" for value in (verdict["difference"], *verdict["ci95"]))
    assert said(folder).startswith(
        f"Fine-tuning is better by {size} points of balanced accuracy "
        f"(95 % interval {low} to {high}; 3 seeds, 288 test images in 24 groups). Use fine-tuning; it takes "
    )
    assert "computation." in said(folder)


def test_feature_extraction_may_win(make_study: MakeStudy) -> None:
    folder = make_study(until="scored", skill={"feature_extraction": 3.0, "fine_tuning": 1.0})
    found = conclusion(folder)
    assert found["verdict"]["outcome"] == "feature_extraction"
    assert found["verdict"]["difference"] < 0
    assert found["comparisons"][0]["outcome"] == "worse"
    assert "Feature extraction is better by" in said(folder)
    assert ". Use feature extraction; it takes " in said(folder)
    assert found["recommendation"]["strategy"] == "feature_extraction"


def test_of_two_equal_sides_the_cheaper_is_recommended(make_study: MakeStudy) -> None:
    study = {"confirmation": {"equivalence": 0.9}}
    folder = make_study(until="scored", study=study, skill={"feature_extraction": 2.7, "fine_tuning": 2.8})
    found = conclusion(folder)
    assert found["verdict"]["outcome"] == "equal"
    use = cheaper(found["verdict"])
    assert (found["recommendation"]["strategy"], found["recommendation"]["basis"]) == (use, "cheaper")
    assert f"Use {STRATEGY[use]}, the " in said(folder)


@pytest.mark.parametrize(
    ("cost_ratio", "use", "words"),
    [
        (2.8, "feature_extraction", "the cheaper one: fine-tuning takes 2.8 times the computation."),
        (1.05, "feature_extraction", "the simpler one: fine-tuning takes about the same computation."),
        (0.95, "feature_extraction", "the simpler one: fine-tuning takes about the same computation."),
        (0.5, "fine_tuning", "the cheaper one: feature extraction takes 2.0 times the computation."),
        (None, "feature_extraction", "the simpler one: what fine-tuning costs is not known."),
    ],
)
def test_measured_seconds_do_not_flip_the_advice(
    make_study: MakeStudy, cost_ratio: float | None, use: str, words: str
) -> None:
    """What a training computes is known; its seconds are measured, and are others each time."""
    verdict = conclusion(make_study(until="scored"))["verdict"]
    verdict |= {"outcome": "equal", "difference": 0.001, "ci95": [-0.004, 0.006], "cost_ratio": cost_ratio}
    for seconds in ((9.0, 10.0), (10.0, 9.0)):
        verdict["seconds_alone"] = dict(zip(("feature_extraction", "fine_tuning"), seconds, strict=True))
        assert cheaper(verdict) == use
        assert f"Use {STRATEGY[use]}, {words}" in sentence(verdict, "balanced_accuracy")


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 8),
        ({"epochs": 5}, 5),
        ({"augmentation": "none"}, 1),
        ({"augmentation": "none", "imbalance": "balanced_sampling"}, 8),
        ({"head_solver": "adamw"}, 20),
    ],
)
def test_a_logistic_head_costs_the_passes_that_it_makes(
    make_study: MakeStudy, changes: dict[str, Any], passes: int
) -> None:
    study = StudyData.read(make_study(until="scored")).study
    steps = TrialConfig("feature_extraction", "resnet18", 0, 1e-3, None, augmentation="flips", epochs=1)
    logistic = dataclasses.replace(steps, head_solver="logistic", epochs=20)
    assert cost_ratio(dataclasses.replace(logistic, **changes), steps, study) == pytest.approx(passes)


def test_undecided_names_the_better_bet_and_what_would_decide_and_commands_nothing(make_study: MakeStudy) -> None:
    study = {"confirmation": {"seeds": 3, "equivalence": 0.001}}
    folder = make_study(until="scored", study=study, skill={"feature_extraction": 2.7, "fine_tuning": 2.8})
    found = conclusion(folder)
    verdict = found["verdict"]
    assert verdict["outcome"] == "undecided"
    ahead = "fine_tuning" if verdict["difference"] > 0 else "feature_extraction"
    assert (found["recommendation"]["strategy"], found["recommendation"]["basis"]) == (ahead, "better_bet")
    assert "Use " not in said(folder)
    better = verdict["probability_fine_tuning_better"]
    likely = f"{(better if ahead == 'fine_tuning' else 1 - better) * 100:.0f} %"
    assert f"The better bet is {STRATEGY[ahead]}: on new images and another seed it would be ahead" in said(folder)
    assert f"with a probability of about {likely}" in said(folder)
    verdict["needed"] = {"seeds": 9, "test_images": 2000, "seconds": 734.0}
    decides = (
        "About 9 seeds or 2,000 test images would probably decide; SEEDS=9 continues the study, about 12 min more."
    )
    assert decides in sentence(verdict, "balanced_accuracy")


def test_the_time_of_further_seeds_is_what_a_seed_took(make_study: MakeStudy) -> None:
    study = {"confirmation": {"seeds": 3, "equivalence": 0.001}}
    folder = make_study(until="scored", study=study, skill={"feature_extraction": 2.7, "fine_tuning": 2.9})
    needed = conclusion(folder)["verdict"]["needed"]
    runs = [run for run in StudyData.read(folder).records if run.kind == "confirmation"]
    if needed["seeds"]:
        took = sum(run.seconds_spent or run.seconds_alone for run in runs) / 3
        assert needed["seconds"] == pytest.approx(took * (needed["seeds"] - 3))
    else:
        assert needed["seconds"] is None


def test_a_winner_at_chance_is_not_recommended(make_study: MakeStudy) -> None:
    folder = make_study(until="scored", skill={"feature_extraction": 0.0, "fine_tuning": 0.0})
    found = conclusion(folder)
    assert not any(score["learned"] for score in found["verdict"]["scores"].values())
    assert found["verdict"]["guessing"] == pytest.approx(1 / 6)
    assert found["recommendation"]["basis"] == "guessing"
    assert "Neither side learned to tell the classes" in said(folder)
    assert "and guessing gives 16.7 %" in said(folder)
    assert "Use " not in said(folder)


def test_few_seeds_are_no_proof_that_nothing_was_learned(make_study: MakeStudy) -> None:
    verdict = conclusion(make_study(until="scored"))["verdict"]
    for score in verdict["scores"].values():
        score |= {"mean": 0.7, "ci95": [0.1, 1.0], "learned": False}
    text = sentence(verdict, "balanced_accuracy")
    assert "do not show that neither side" not in text
    assert "So few seeds and test images do not show that either side does better than guessing" in text
    assert "scored 70.0 %, and guessing gives 16.7 %" in text


def test_a_side_that_still_rose_is_said_with_the_epochs_to_try(make_study: MakeStudy) -> None:
    verdict = conclusion(make_study(until="scored"))["verdict"]
    for score in verdict["scores"].values():
        score["rising"] = None
    assert "Not trained to the end" not in sentence(verdict, "balanced_accuracy")
    verdict["scores"]["fine_tuning"]["rising"] = {"gain": 0.031, "epochs": 2, "of": 8}
    assert sentence(verdict, "balanced_accuracy").endswith(
        "Not trained to the end: the validation score still rose for fine-tuning (3.1 points over the last 2 epochs); "
        "try EPOCHS=16 under another name (AS=…)."
    )
    verdict["scores"]["fine_tuning"]["rising"] = {"gain": 0.031, "epochs": 1, "of": 4}
    assert "fine-tuning (3.1 points over the last epoch); try EPOCHS=8" in sentence(verdict, "balanced_accuracy")


def test_an_interval_that_says_nothing_is_not_written(make_study: MakeStudy) -> None:
    verdict = conclusion(make_study(until="scored"))["verdict"]
    verdict |= {"outcome": "undecided", "difference": 0.2, "ci95": [-0.31, 0.71], "test_images": 6, "test_groups": None}
    text = sentence(verdict, "balanced_accuracy")
    assert "(too few test images to say by how much; 3 seeds, 6 test images)" in text
    assert "71.0" not in text


def test_the_recommended_run_has_the_median_validation_score(make_study: MakeStudy) -> None:
    folder = make_study(until="scored", seeds=5)
    chosen = conclusion(folder)["recommendation"]
    runs = StudyState.of(read_events(folder.events)).records
    own = {
        run.trial_id: run.score
        for run in runs
        if run.kind == "confirmation" and run.config.to_json() == chosen["config"]
    }
    assert own[chosen["trial_id"]] == sorted(own.values())[2]
    assert chosen["model"] is None


def test_a_logged_model_stands_in_the_recommendation(make_study: MakeStudy) -> None:
    assert conclusion(make_study())["recommendation"]["model"] == "models:/m-4c1f"


def test_three_strategies_give_every_pair_and_keep_the_primary_first(make_study: MakeStudy) -> None:
    folder = make_study(until="scored", strategies=("feature_extraction", "fine_tuning", "from_scratch"))
    found = conclusion(folder)
    pairs = [(pair["a"], pair["b"]) for pair in found["comparisons"]]
    assert pairs[0] == ("feature_extraction", "fine_tuning")
    assert set(pairs[1:]) == {("feature_extraction", "from_scratch"), ("fine_tuning", "from_scratch")}
    assert "scratch" not in said(folder)


def test_further_pairs_are_read_at_holm_s_levels(make_study: MakeStudy) -> None:
    strategies = ("feature_extraction", "fine_tuning", "from_scratch")
    skill = dict(zip(strategies, (1.9, 1.9, 2.2), strict=True))
    found = conclusion(make_study(until="scored", strategies=strategies, skill=skill))
    [pair] = [p for p in found["comparisons"] if (p["a"], p["b"]) == ("feature_extraction", "from_scratch")]
    assert pair["ci95"][0] > 0
    assert pair["outcome"] == "undecided"  # one of two further questions, so that 95 % would be too easy


def test_training_from_scratch_is_named_where_it_beats_both(make_study: MakeStudy) -> None:
    folder = make_study(
        until="scored",
        strategies=("feature_extraction", "fine_tuning", "from_scratch"),
        skill={"feature_extraction": 0.4, "fine_tuning": 0.8, "from_scratch": 4.0},
        images=900,
        seeds=5,
    )
    found = conclusion(folder)
    assert "Training from scratch was better than both" in said(folder)
    assert said(folder).endswith("use that.")
    assert found["verdict"]["outcome"] != "from_scratch"  # it speaks of the pair that was named in advance
    assert found["recommendation"]["strategy"] == "from_scratch"


def test_the_sign_is_turned_for_log_loss_and_the_unit_is_nats(make_study: MakeStudy) -> None:
    folder = make_study(until="scored", study={"objective": "log_loss"})
    found = conclusion(folder)
    assert found["verdict"]["difference"] > 0
    assert "nats of log-loss" in said(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"until": "search", "done": 2}, "4 of 16 trials are finished so far"),
        ({"until": "confirmation"}, "confirmation has not"),
        ({"state": "failed"}, r"No trial of feature extraction completed \(8 failed\)"),
        ({"until": "scored", "strategies": ("fine_tuning",)}, "leaves feature extraction out"),
    ],
)
def test_a_missing_verdict_says_why(make_study: MakeStudy, arguments: dict[str, Any], words: str) -> None:
    found = conclusion(make_study(**arguments))
    assert found["verdict"] is None
    assert re.search(words, found["verdict_reason"])


def test_one_strategy_alone_is_recommended_without_a_verdict(make_study: MakeStudy) -> None:
    found = conclusion(make_study(until="scored", strategies=("fine_tuning",)))
    assert found["recommendation"]["strategy"] == "fine_tuning"
    assert found["comparisons"] == []


def test_one_shared_seed_is_not_enough(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    for path in sorted(folder.predictions.glob("fine_tuning-*-[12].npz")):
        path.unlink()
    found = conclusion(folder)
    assert found["verdict"] is None
    assert "share 1 scored seed; an interval needs two" in found["verdict_reason"]


def test_a_side_scored_on_other_images_is_not_compared(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    for path in folder.predictions.glob("fine_tuning-*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        np.savez(path, **{**arrays, "rows": arrays["rows"] + 1})
    assert conclusion(folder)["verdict"] is None


def test_the_order_of_the_rows_in_a_file_does_not_matter(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    before = conclusion(folder)["verdict"]
    for path in folder.predictions.glob("fine_tuning-*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        np.savez(path, **{name: array[::-1] for name, array in arrays.items()})
    assert conclusion(folder)["verdict"] == before


def test_a_second_look_takes_its_own_winner_and_is_counted(make_study: MakeStudy) -> None:
    folder = make_study(until="scored")
    before = conclusion(folder)["verdict"]
    log = EventLog(folder.events)
    for scored in log.of(TestScored):
        if scored.role == "default":  # the defaults win the second look
            log.append(dataclasses.replace(scored, look=2, role="winner+default"))
    log.close()
    after = conclusion(folder)["verdict"]
    assert after["test_looks"] == 2
    assert after["difference"] != before["difference"]


def test_a_study_without_any_trial_has_no_verdict(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="search", done=0))
    assert conclude(StudyState(), {}, data.study)["verdict"] is None
