"""What is said of the search rests on its trials: exact expectations, winners against defaults, edges, pruning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest

from harness.analysis import anytime
from harness.analysis.anytime import best_by_seconds, best_of_draws
from harness.analysis.search_value import compare_with_defaults, edges, end_of, gaps, pruning
from harness.analysis.statistics import compare_strategies
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.report import axes
from harness.report.section import Section, build_sections
from harness.report.sections import search_course, search_value
from harness.report.sections.all import SECTIONS
from harness.results.metrics import score
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, State, TrialJob, TrialRecord

MakeStudy = Callable[..., StudyFolder]
FE, FT = "feature_extraction", "fine_tuning"
STUDY = StudyConfig.model_validate(
    {
        "epochs": 10,
        "search": {
            "unfreeze_depth": {"low": 1, "high": 5},
            "head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
            "layer_decay": {"low": 0.5, "high": 1.0},
            "batch_size": {"low": 30, "high": 33},
            "head_hidden": {"low": 64, "high": 66},
        },
    }
)


def trial(slot: int, value: float | None, strategy: Any = FT, state: State = "complete", **changes: Any) -> TrialRecord:
    """A finished search trial; `epochs_done` epochs where given, parameters of the configuration by their names."""
    done, seconds = changes.pop("epochs_done", 10), changes.pop("seconds", 2.0)
    config = dataclasses.replace(space(STUDY, strategy).default(), **{"batch_size": 32, **changes})
    return TrialRecord(
        job=TrialJob(f"{strategy}/{slot}", "search", strategy, slot, config, 0, "search"),
        state=state,
        reason=None,
        epochs=tuple(EpochRecord(k + 1, 1.0, {}, 1e-3, None, 1.0) for k in range(done)),
        best_epoch=None if value is None else 1,
        score=value,
        seconds_alone=seconds,
        trainable_parameters=1,
        total_parameters=1,
        device="cpu",
        started_at="2026-11-21T09:00:00.000+00:00",
    )


def confirmed(record: TrialRecord, seed: int) -> TrialRecord:
    """The same trial as one of the confirmation."""
    return dataclasses.replace(record, job=dataclasses.replace(record.job, kind="confirmation", slot=seed))


def search(values: list[float | None], **changes: Any) -> list[TrialRecord]:
    """Complete trials with these scores; None is a diverged one."""
    return [
        trial(slot, value, state="complete" if value is not None else "diverged", **changes)
        for slot, value in enumerate(values)
    ]


def search_sections(data: StudyData) -> list[Section]:
    """What the page says of the search itself."""
    return [section for section in build_sections(SECTIONS, data) if section.key.startswith("search-")]


def told(sections: list[Section]) -> dict[str, Section]:
    return {section.key: section for section in sections}


# --- the best so far, by trials -------------------------------------------------------------------------------------


def test_the_expected_best_of_n_trials_is_the_mean_over_all_subsets() -> None:
    values = [0.31, 0.7, 0.55, 0.55, 0.12, 0.9]
    mean, _, _ = best_of_draws(values, range(1, 7))
    brute = [np.mean([max(drawn) for drawn in combinations(values, n)]) for n in range(1, 7)]
    assert mean == pytest.approx(brute, abs=1e-12)
    assert (mean[0], mean[-1]) == pytest.approx((np.mean(values), 0.9))


def test_the_band_holds_the_quantiles_over_all_subsets() -> None:
    values = np.random.default_rng(3).random(12)
    for n in (1, 2, 5, 11):
        _, low, high = best_of_draws(values, [n])
        brute = np.quantile([max(drawn) for drawn in combinations(values, n)], [0.1, 0.9], method="inverted_cdf")
        assert [low[0], high[0]] == pytest.approx(brute)


def test_the_expectation_stays_exact_at_five_thousand_trials() -> None:
    values = np.random.default_rng(0).random(5000)
    mean, low, high = best_of_draws(values, [1, 2, 5000])
    ranked = np.sort(values)
    pairs = 2 * np.sum(np.arange(5000) * ranked) / (5000 * 4999)  # the i-th smallest is the larger of i - 1 pairs
    assert mean == pytest.approx([values.mean(), pairs, values.max()], abs=1e-9)
    assert low[2] == high[2] == values.max()


def test_a_trial_that_did_not_complete_never_wins_and_counts_as_the_worst_complete_one() -> None:
    found = [*search([0.5, 0.6, 0.7, 0.8]), trial(4, 0.99, state="pruned"), trial(5, None, state="failed")]
    made = anytime.anytime(found, FT, "accuracy")
    assert made is not None
    assert made.trials == 6
    assert made.by_trials.mean[0] == pytest.approx((0.5 + 0.6 + 0.7 + 0.8 + 0.5 + 0.5) / 6)
    assert made.by_trials.mean[-1] == pytest.approx(0.8)


def test_where_lower_is_better_the_expected_best_falls_to_the_lowest() -> None:
    made = anytime.anytime(search([1.4, 1.2, 0.9, 1.1, 2.0, 1.0]), FT, "log_loss")
    assert made is not None
    assert (made.by_trials.mean[0], made.by_trials.mean[-1]) == pytest.approx((7.6 / 6, 0.9))
    assert (np.diff(made.by_trials.mean) < 0).all()
    assert (made.by_trials.low <= made.by_trials.mean + 1e-12).all()
    assert (made.by_trials.high >= made.by_trials.mean - 1e-12).all()
    assert list(made.by_trials.actual) == [1.4, 1.2, 0.9, 0.9, 0.9, 0.9]


def test_too_few_trials_or_no_complete_one_have_no_course() -> None:
    assert anytime.anytime(search([0.5] * 5), FT, "accuracy") is None
    assert anytime.anytime(search([None] * 8), FT, "accuracy") is None
    assert anytime.anytime(search([0.5] * 8), FE, "accuracy") is None
    assert anytime.anytime(search([0.5] * 6), FT, "accuracy") is not None


# --- by seconds -----------------------------------------------------------------------------------------------------


def test_the_best_by_seconds_is_the_mean_over_all_orders() -> None:
    values, seconds, at = [0.2, 0.9, 0.5], [1.0, 6.0, 2.0], [0.5, 1.0, 2.5, 6.5, 8.5, 9.0]

    def reached(order: tuple[int, ...], time: float) -> float:
        best, clock = 0.2, 0.0
        for index in order:
            clock += seconds[index]
            best = max(best, values[index]) if clock <= time else best
        return best

    mean, low, high = best_by_seconds(values, seconds, at)
    brute = [np.mean([reached(order, time) for order in permutations(range(3))]) for time in at]
    assert mean == pytest.approx(brute, abs=0.06)  # 300 random orders of the six
    assert [mean[0], mean[-1]] == pytest.approx([0.2, 0.9])
    assert [low[2], high[2]] == [0.2, 0.5]  # after 2.5 s the trial of 6 s has never ended


def test_every_search_ends_at_its_best_when_all_its_seconds_are_spent() -> None:
    rng = np.random.default_rng(1)
    found = [trial(slot, float(rng.random()), seconds=float(rng.random())) for slot in range(40)]
    made = anytime.anytime(found, FT, "accuracy")
    assert made is not None and made.by_seconds is not None
    best = max(record.score or 0.0 for record in found)
    assert made.by_seconds.cost[-1] == pytest.approx(sum(record.seconds_alone for record in found))
    course = made.by_seconds
    assert [course.mean[-1], course.low[-1], course.actual[-1]] == pytest.approx([best] * 3)


def test_without_measured_seconds_there_is_no_course_by_seconds() -> None:
    made = anytime.anytime(search([0.5] * 6, seconds=0.0), FT, "accuracy")
    assert made is not None and made.by_seconds is None


# --- the heading of the course --------------------------------------------------------------------------------------


def test_a_search_near_its_best_early_says_after_how_many_trials() -> None:
    made = anytime.anytime(search([0.80, 0.804, 0.801, 0.802, 0.803, 0.80, 0.80, 0.70]), FT, "accuracy")
    assert made is not None
    # One trial: mean 0.78875; two: the worst one weighs in one of four draws, and never alone.
    assert made.near == 2
    heading = search_course.anytime_heading([made], "accuracy")
    assert heading == "Fine-tuning was expected within 0.5 points of its best after 2 of 8 trials"


def test_a_search_whose_last_quarter_would_bring_more_than_half_a_point_was_still_gaining() -> None:
    made = anytime.anytime(search([0.5] * 9 + [0.6]), FT, "accuracy")
    assert made is not None
    # The best one is among the last three of ten in three of ten orders, and is worth ten points.
    assert (made.last, made.last_gain, made.near) == (3, pytest.approx(0.03), 10)
    assert search_course.anytime_heading([made], "accuracy") == (
        "Fine-tuning was still gaining, by an expected 3.0 points in its last quarter of trials"
    )


def test_both_kinds_of_search_stand_in_one_heading() -> None:
    late = anytime.anytime(search([0.5] * 7 + [0.6]), FT, "auroc")
    early = anytime.anytime([trial(slot, 0.5, FE) for slot in range(8)], FE, "auroc")
    assert late is not None and early is not None
    assert search_course.anytime_heading([early, late], "auroc") == (
        "Feature extraction was expected within 0.005 of its best after 1 of 8 trials; "
        "fine-tuning was still gaining, by an expected 0.025 in its last quarter of trials"
    )


# --- winners against defaults ---------------------------------------------------------------------------------------


def side(strategy: str, key: str, right: float, seeds: tuple[int, ...] = (0, 1, 2), rows: int = 400) -> TestPredictions:
    """Predictions of four classes that are right in this share of the images, the same share at every seed."""
    labels = np.arange(rows) % 4
    rng = np.random.default_rng(round(right * 1000))
    named = np.stack([np.where(rng.permutation(rows) < right * rows, labels, (labels + 1) % 4) for _ in seeds])
    probabilities = (np.eye(4)[named] * 0.9 + 0.025).astype(np.float32)
    return TestPredictions(strategy, key, seeds, probabilities, labels, None, np.arange(rows), ())


def test_a_winner_is_compared_with_its_default_on_the_seeds_that_both_have() -> None:
    winner, default = side(FT, "w", 0.9, (0, 1, 2, 3)), side(FT, "d", 0.6, (1, 2, 3, 4))
    (row,) = compare_with_defaults({FT: winner}, {FT: default}, "accuracy", 0.01)
    expected = compare_strategies(default.at([1, 2, 3]), winner.at([1, 2, 3]), winner.labels, objective="accuracy")
    assert row.compared is not None
    assert (row.default, row.winner, row.seeds) == (pytest.approx(0.6), pytest.approx(0.9), 3)
    assert row.compared.difference == pytest.approx(0.3)
    assert row.compared.ci95 == expected.ci95
    assert (
        search_value.default_heading([row], "accuracy")
        == "The search paid in fine-tuning (+30.0 points over the default)"
    )


def test_a_winner_that_is_the_default_needs_no_interval() -> None:
    same = side(FE, "d", 0.7)
    (row,) = compare_with_defaults({FE: same}, {FE: same}, "accuracy", 0.01)
    assert row.compared is None
    assert search_value.default_heading([row], "accuracy") == (
        "The search found nothing above the default in feature extraction"
    )


def test_one_shared_seed_or_other_test_images_are_not_compared() -> None:
    winner = side(FT, "w", 0.9)
    assert compare_with_defaults({FT: winner}, {FT: side(FT, "d", 0.6, (2, 3))}, "accuracy", 0.01) == []
    assert compare_with_defaults({FT: winner}, {FT: side(FT, "d", 0.6, rows=200)}, "accuracy", 0.01) == []
    assert compare_with_defaults({FT: winner}, {}, "accuracy", 0.01) == []


def test_two_strategies_are_read_at_holm_s_levels() -> None:
    one = {FT: side(FT, "w", 0.655)}, {FT: side(FT, "d", 0.60)}
    alone = compare_with_defaults(*one, "accuracy", 0.0)[0].compared
    assert alone is not None and alone.outcome == "better"
    others = [(f"{FE}{k}", side(FE, "w", 0.605), side(FE, "d", 0.6)) for k in range(6)]
    crowd = compare_with_defaults(
        {**one[0], **{name: winner for name, winner, _ in others}},
        {**one[1], **{name: default for name, _, default in others}},
        "accuracy",
        0.0,
    )
    among = next(row.compared for row in crowd if row.strategy == FT)
    assert among is not None
    assert among.ci95 == alone.ci95
    assert among.outcome == "undecided"


def test_the_section_tells_the_difference_that_the_stored_predictions_give(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="scored", trials=8))
    section = told(search_sections(data))["search-paid"]
    defaults = data.defaults
    assert section.table is not None and len(section.table.rows) == 2
    for cells, strategy in zip(section.table.rows, (FE, FT), strict=True):
        a, b = defaults[strategy], data.winners[strategy]
        expected = compare_strategies(a.probabilities, b.probabilities, a.labels, a.groups)
        assert cells[1] == f"{np.mean([score('balanced_accuracy', p, a.labels) for p in a.probabilities]) * 100:.1f} %"
        assert cells[3].startswith(f"{expected.difference * 100:+.1f} (")
        assert cells[4] != "practically equal"  # both intervals leave the zone of one point


# --- what the search promised ---------------------------------------------------------------------------------------


def test_the_gap_compares_one_configuration_in_search_confirmation_and_test() -> None:
    record = trial(0, 0.95)
    runs = tuple(
        dataclasses.replace(confirmed(record, seed), score=value) for seed, value in enumerate((0.90, 0.92, 0.94))
    )
    winner = dataclasses.replace(side(FT, "w", 0.9), runs=runs)
    better = trial(1, 0.97, head_lr=0.01)
    (row,) = gaps([record, better, *runs], {FT: winner}, "accuracy")
    assert (row.search, row.confirmed, row.test) == (0.95, pytest.approx(0.92), pytest.approx(0.9))
    assert (row.above_confirmation, row.above_test) == (pytest.approx(0.03), pytest.approx(0.05))
    assert not row.is_best
    assert gaps([record, *runs], {FT: winner}, "accuracy")[0].is_best
    assert search_value.gap_heading([row], "accuracy") == (
        "Against its test score, the winner's search score was 5.0 points better in fine-tuning"
    )


def test_a_lower_log_loss_in_the_search_is_a_better_one() -> None:
    record = trial(0, 0.2)
    winner = dataclasses.replace(side(FT, "w", 0.9), runs=(confirmed(record, 0),))
    (row,) = gaps([record], {FT: winner}, "log_loss")
    assert row.above_test == pytest.approx(row.test - 0.2)
    assert row.above_test > 0
    assert "better in fine-tuning" in search_value.gap_heading([row], "log_loss")


# --- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "end"),
    [
        ("head_lr", 0.08, "high"),  # 97 % of the way in the logarithm
        ("head_lr", 0.06, None),  # 93 %, though 60 % of the plain span
        ("head_lr", 1.3e-4, "low"),
        ("layer_decay", 0.52, "low"),
        ("layer_decay", 1.0, None),  # no decay: there is nothing above it
        ("unfreeze_depth", 5, None),  # every stage
        ("unfreeze_depth", 1, None),
        ("batch_size", 33, "high"),
        ("batch_size", 32, None),
        ("head_hidden", 66, None),  # three values have no inside to speak of
    ],
)
def test_a_value_lies_at_the_edge_in_the_outer_twentieth_of_its_span(name: str, value: float, end: str | None) -> None:
    assert end_of(name, value, STUDY.search[name]) == end  # type: ignore[arg-type]


def test_a_best_rate_at_the_end_of_its_range_is_named() -> None:
    found = [trial(0, 0.7), trial(1, 0.9, head_lr=0.09), trial(2, 0.8, head_lr=1e-4)]
    (edge,) = edges(found, {}, STUDY)
    assert (edge.strategy, edge.parameter, edge.value, edge.end, edge.roles) == (
        FT,
        "head_lr",
        0.09,
        "high",
        ("best trial",),
    )
    assert search_value.edge_heading([edge]) == (
        "Fine-tuning's best head learning rate lies at the edge of its range: search further up"
    )


def test_a_confirmed_winner_s_edge_is_named_beside_the_best_trial_s() -> None:
    best, second = trial(0, 0.9, head_lr=0.09, batch_size=33), trial(1, 0.8, head_lr=1e-4, batch_size=33)
    winner = dataclasses.replace(side(FT, "w", 0.9), runs=(confirmed(second, 0),))
    found = edges([best, second], {FT: winner}, STUDY)
    assert {(edge.parameter, edge.value): edge.roles for edge in found} == {
        ("head_lr", 0.09): ("best trial",),
        ("batch_size", 33): ("best trial", "confirmed winner"),
        ("head_lr", 1e-4): ("confirmed winner",),
    }


def test_a_parameter_that_has_no_effect_is_at_no_edge() -> None:
    study = StudyConfig.model_validate({"search": {"head_hidden": {"low": 256, "high": 1024}}})
    assert edges([trial(0, 0.9)], {}, study) == []  # a linear head has no hidden units; 256 is a placeholder
    (edge,) = edges([trial(0, 0.9, head="mlp")], {}, study)
    assert edge.end == "low"


def test_several_edges_stand_in_one_heading() -> None:
    found = [trial(0, 0.9, head_lr=0.09, batch_size=33), trial(0, 0.9, FE, head_lr=1e-4, batch_size=32)]
    assert search_value.edge_heading(edges(found, {}, STUDY)) == (
        "Best values lie at the edge of their range, search further: head learning rate (down) in feature extraction; "
        "head learning rate (up) and batch size (up) in fine-tuning"
    )


# --- pruning --------------------------------------------------------------------------------------------------------


def pruned(strategy: str, stopped: int, total: int) -> list[TrialRecord]:
    ends = [(4, "pruned")] * stopped + [(10, "complete")] * (total - stopped)
    return [
        trial(slot, 0.5, strategy, state, epochs_done=done)  # type: ignore[arg-type]
        for slot, (done, state) in enumerate(ends)
    ]


def test_uneven_pruning_is_said_with_its_counts() -> None:
    found = pruning(pruned(FE, 0, 10) + pruned(FT, 6, 10), [FE, FT])
    assert found is not None
    # Fisher: all six stopped trials on one side, either one: 2 * C(10, 6) / C(20, 6).
    assert found.p_value == pytest.approx(2 * 210 / 38760)
    assert [(row.pruned, row.saved, row.planned) for row in found.strategies] == [(0, 0, 100), (6, 36, 100)]
    assert search_value.pruning_heading(found) == (
        "Pruning saved 18 % of the epochs, unevenly: it stopped 6 of 10 trials in fine-tuning and "
        "0 of 10 trials in feature extraction"
    )


def test_pruning_that_may_be_even_is_not_called_uneven() -> None:
    found = pruning(pruned(FE, 2, 10) + pruned(FT, 5, 10), [FE, FT])
    assert found is not None
    assert search_value.pruning_heading(found) == (
        "Pruning saved 21 % of the epochs, with no clear difference between the strategies"
    )


def test_epochs_that_a_diverged_trial_did_not_run_are_not_saved_by_pruning() -> None:
    found = pruning([*pruned(FT, 1, 9), trial(9, None, state="diverged", epochs_done=1)], [FT])
    assert found is not None
    assert (found.strategies[0].saved, found.strategies[0].planned, found.p_value) == (6, 100, None)
    assert search_value.pruning_heading(found) == "Pruning saved 6 % of the epochs in fine-tuning"


def test_three_strategies_are_compared_pair_by_pair_with_their_number_counted() -> None:
    names = [FE, FT, "from_scratch"]
    found = pruning(pruned(FE, 0, 10) + pruned(FT, 6, 10) + pruned("from_scratch", 3, 10), names)
    assert found is not None
    assert found.p_value == pytest.approx(3 * 2 * 210 / 38760)


# --- sections and figures -------------------------------------------------------------------------------------------


def test_a_search_without_anything_to_say_has_no_section(make_study: MakeStudy) -> None:
    assert search_sections(StudyData.read(make_study(until="search", done=2))) == []


def test_a_finished_study_has_course_comparison_gap_and_pruning(make_study: MakeStudy) -> None:
    made = search_sections(StudyData.read(make_study(trials=8)))
    assert [section.key for section in made] == ["search-anytime", "search-paid", "search-gap", "search-pruning"]
    course = made[0]
    assert len(course.pictures) == 2
    assert "In " in course.note and "all that the cheapest search took" in course.note


def test_a_constructed_study_whose_best_rate_is_at_the_edge_says_so(make_study: MakeStudy) -> None:
    study = {
        "search": {"head_lr": {"low": 1e-6, "high": 1.6e-3, "log": True}, "backbone_lr": 1e-4, "unfreeze_depth": 3}
    }
    folder = make_study(study=study, trials=6, vary={"head_lr": (1.6e-3, 1e-5, 1e-5)}, strategies=(FT,))
    (section,) = [s for s in search_sections(StudyData.read(folder)) if s.key == "search-edges"]
    assert section.heading == "Fine-tuning's best head learning rate lies at the edge of its range: search further up"
    assert section.table is not None
    assert section.table.rows == [
        ["Fine-tuning", "head learning rate", "1.6e-3", "1e-6 to 1.6e-3 (upper end)", "best trial and confirmed winner"]
    ]


def test_the_figure_tells_each_strategy_s_numbers() -> None:
    courses = []
    for strategy, gain in ((FE, 0.0), (FT, 0.1)):
        made = anytime.anytime([trial(k, 0.5 + gain + k / 100, strategy) for k in range(8)], strategy, "accuracy")
        assert made is not None
        courses.append(made.by_trials)
    shown = search_course.anytime_figure(courses, "trials", "accuracy")
    assert shown.alt == (
        "Expected best validation score so far: feature extraction 53.5 % after 1 trial, 56.2 % after 4 trials, "
        "57.0 % after 8 trials; fine-tuning 63.5 % after 1 trial, 66.2 % after 4 trials, 67.0 % after 8 trials."
    )
    assert "var(--fine-tuning)" in shown.svg and "var(--feature-extraction)" in shown.svg
    assert ">fine-tuning<" in shown.svg


def test_labels_of_lines_that_end_together_stand_apart_in_their_order() -> None:
    placed = axes.heights([0.9, 0.88, 0.2], 0.17)
    assert placed[0] - placed[1] == pytest.approx(0.17)
    assert placed[1] - placed[2] > 0.17
    assert axes.heights([0.9, 0.3], 0.17) == [0.9, 0.3]


@pytest.mark.parametrize(("least", "most"), [(12, 50), (0.02, 9), (9, 110), (3, 90_000)])
def test_a_time_axis_has_two_to_seven_ticks(least: float, most: float) -> None:
    assert 2 <= len(search_course.time_ticks(least, most)) <= 7
