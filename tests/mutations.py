"""Small errors put into the package one at a time, to see that some test fails for each: `python tests/mutations.py`.

It says what the suite guards, so that a test may be removed where another one still fails for the same errors. Each
mutation is applied to a copy of the tree in a temporary folder; nothing of this tree changes. The tests named in
`first` run, and with `--suite` the whole suite where none of them fails. Exit code 1: some mutation survived.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", "runs", "*_cache", "*.egg-info", "build", ".hypothesis")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::[^\[\s]+)?)", re.MULTILINE)
PASSED, SOME_FAILED, STOPPED = 0, 1, 2  # exit codes of pytest; the others say that no test ran


@dataclass(frozen=True)
class Mutation:
    """One error: `before` stands once in `file`, and `after` takes its place."""

    name: str  # what is broken, in a sentence
    file: str  # relative to the root
    before: str
    after: str
    first: tuple[str, ...]  # the tests most likely to fail
    killed_by: tuple[str, ...] = ()  # tests that were seen to fail

    def apply(self, root: Path) -> None:
        """Write the error into the tree at `root`."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        found = text.count(self.before)
        assert found == 1, f"{self.name}: {self.before!r} must stand once in {self.file}, but stands {found} times"
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")


MUTATIONS = (
    # --- config
    Mutation(
        "A schedule that unfreezes later is taken for one that does so at once",
        "harness/config/parameters.py",
        'any_frozen = depth < DEPTH_MAX or schedule != "at_once"',
        "any_frozen = depth < DEPTH_MAX",
        ("tests/config/test_load.py",),
        ("tests/config/test_load.py::test_configurations_that_differ_stay_two",),
    ),
    Mutation(
        "A progressive schedule may have one epoch too few",
        "harness/config/load.py",
        "deepest + 1 > study.epochs",
        "deepest > study.epochs",
        ("tests/config/test_load.py",),
        ("tests/config/test_load.py::test_what_is_wrong_is_said",),
    ),
    Mutation(
        "Own data in the place of rendered images are not another study",
        "harness/config/load.py",
        'data.get("source", "rendered_cells") is not None',
        'data.get("source") is not None',
        ("tests/config/test_load.py",),
        ("tests/config/test_load.py::test_own_data_is_another_study_unless_the_file_names_none",),
    ),
    Mutation(
        "A learning rate of zero is allowed",
        "harness/config/parameter.py",
        "or (self.low_open and number == low)",
        "",
        ("tests/config/test_values.py",),
        ("tests/config/test_values.py::test_a_number_out_of_range_is_refused_by_name",),
    ),
    # --- data
    Mutation(
        "The background shows through where an image is opaque",
        "harness/data/decoding/scaling.py",
        "np.float32(full / 255) * (1 - share)",
        "np.float32(full / 255) * share",
        ("tests/data/test_decode.py",),
        ("tests/data/test_decode.py::test_alpha_hides_what_lies_under_it",),
    ),
    Mutation(
        "The draw of a split tears groups and copies of an image apart",
        "harness/data/split.py",
        "parts[pool] = _drawn(table[pool], units[pool], wanted, random)",
        "parts[pool] = _drawn(table[pool], np.arange(pool.sum()), wanted, random)",
        ("tests/data/test_split.py",),
        ("tests/data/test_split.py::test_no_group_and_no_image_ever_straddles_two_parts",),
    ),
    Mutation(
        "A seed of the confirmation draws the test part anew",
        "harness/data/split.py",
        'np.isin(parts, ["train", "validation"])',
        'np.isin(parts, ["train", "validation", "test"])',
        ("tests/data/test_split.py",),
        ("tests/data/test_split.py::test_no_group_and_no_image_ever_straddles_two_parts",),
    ),
    Mutation(
        "Every epoch shows the same views",
        "harness/data/augmentation.py",
        "np.uint64(epoch)",
        "np.uint64(1)",
        ("tests/data/test_augmentation.py",),
        ("tests/data/test_augmentation.py::test_seed_epoch_image_and_occurrence_each_change_the_view",),
    ),
    Mutation(
        "White of 8 bits is no white among images of 16 bits",
        "harness/data/make_array.py",
        "np.uint16(257)",
        "np.uint16(256)",
        ("tests/data/test_dataset.py",),
        ("tests/data/test_dataset.py::test_one_deep_image_makes_the_array_16_bit_and_scales_the_others",),
    ),
    Mutation(
        "Links that lead out of the data folder are followed",
        "harness/data/sources/tree.py",
        "if not target.is_relative_to(root):",
        "if target == root:",
        ("tests/data/test_sources.py",),
        ("tests/data/test_sources.py::test_links_out_of_the_folder_and_cycles_are_left_aside_and_counted",),
    ),
    Mutation(
        "Parts that hold images directly are taken for classes",
        "harness/data/sources/layout.py",
        "        if not holders:\n            raise readings.flat_parts(self._path, node, direct, others, self.shown)",
        "        if not holders:\n            return []",
        ("tests/data/test_layout.py::test_parts_that_hold_images_directly_are_refused",),
    ),
    Mutation(
        "Near duplicates are parted by the split",
        "harness/data/split.py",
        "    joined = _units(near, units)\n",
        "    return units\n    joined = _units(near, units)\n",
        ("tests/data/understanding/test_findings.py::test_near_duplicates_stay_in_one_part_of_every_draw",),
    ),
    Mutation(
        "A file whose decoder crashes is not named",
        "harness/data/decoder_pool.py",
        "receive(row, Answer([], [], _ending(lane.ended or 0)))",
        "pass",
        ("tests/data/test_decoder_pool.py::test_a_file_that_ends_its_decoder_is_named_and_the_rest_goes_on",),
    ),
    Mutation(
        "Of five channels, nobody says which are shown",
        "harness/data/decoding/channels.py",
        'opened.colours == "channels" and count not in (1, 3)',
        'opened.colours == "channels" and count not in (1, 3, 5)',
        ("tests/data/test_channels.py::test_another_number_of_channels_is_refused_with_it_and_the_three_ways",),
    ),
    Mutation(
        "Images of 8 bits widen the range that deeper images are scaled by",
        "harness/data/dataset.py",
        "if image.facts.deep]",
        "]",
        ("tests/study/test_value_range.py::test_a_range_needs_training_images_with_more_than_8_bits",),
    ),
    # --- model
    Mutation(
        "A frozen parameter keeps its old gradient, and the optimizer moves it",
        "harness/model/freezing.py",
        "parameter.grad = None",
        "pass",
        ("tests/model/test_freezing.py",),
        ("tests/model/test_freezing.py::test_frozen_parameter_with_an_old_gradient_does_not_move",),
    ),
    Mutation(
        "The weights of BatchNorm train under the policy that freezes them",
        "harness/model/freezing.py",
        "kept = frozenset() if POLICIES[config.batchnorm].trains_affine else",
        "kept = frozenset() if True else",
        ("tests/model/test_freezing.py",),
        ("tests/model/test_freezing.py::test_full_depth_trains_every_parameter",),
    ),
    Mutation(
        "The statistics of frozen stages move with those of unfrozen ones",
        "harness/model/transfer.py",
        "policy.updates(unfrozen=trains)",
        "policy.updates(unfrozen=True)",
        ("tests/model/test_batchnorm.py",),
        ("tests/model/test_batchnorm.py::test_statistics_move_only_where_the_policy_says",),
    ),
    Mutation(
        "Pooled variances weigh the distance between batches wrongly",
        "harness/model/batchnorm.py",
        "self.n * n / total",
        "n * n / total",
        ("tests/model/test_batchnorm.py::test_recalibration_does_not_depend_on_the_batch_shape",),
        ("tests/model/test_batchnorm.py::test_recalibration_does_not_depend_on_the_batch_shape",),
    ),
    Mutation(
        "Rates fall towards the head instead of towards the stem",
        "harness/model/param_groups.py",
        "layer_decay ** (last - STAGES.index(stage))",
        "layer_decay ** STAGES.index(stage)",
        ("tests/model/test_param_groups.py",),
        ("tests/model/test_param_groups.py::test_rates_fall_from_the_last_unfrozen_stage",),
    ),
    Mutation(
        "Weights with NaN are trained on",
        "harness/model/weight_files/match.py",
        "if not bool(torch.isfinite(value).all())]",
        "if bool(torch.isinf(value).any())]",
        ("tests/model/test_checkpoint_layouts.py::test_values_that_are_not_finite_are_refused_by_tensor",),
    ),
    Mutation(
        "With many channels, grey gets another response than the weights were trained with",
        "harness/model/input_channels.py",
        "before[:, j % COLOURS] / sharing[j % COLOURS]",
        "before[:, j % COLOURS]",
        ("tests/model/test_input_channels.py",),
    ),
    Mutation(
        "The stages of a vision transformer of timm leave out its last normalisation",
        "harness/model/timm_models.py",
        "part.forward_head(part.norm(x), pre_logits=True)",
        "part.forward_head(x, pre_logits=True)",
        ("tests/model/test_timm.py::test_the_stages_of_every_family_are_its_own_forward",),
    ),
    Mutation(
        "All weights are taken to expect the usual normalisation",
        "harness/config/initial_weights.py",
        'return IMAGENET if self.source == "bundled" else self.official(backbone).normalisation',
        "return IMAGENET",
        ("tests/model/test_weights.py",),
        ("tests/model/test_weights.py::test_weights_with_a_normalisation_of_their_own_say_so",),
    ),
    # --- results
    Mutation(
        "An event is told to be on the disk before it is",
        "harness/results/events.py",
        "os.fsync(self._stream.fileno())",
        "self._stream.fileno()",
        ("tests/results/test_events.py",),
        ("tests/results/test_events.py::test_an_event_is_on_the_disk_when_it_was_appended",),
    ),
    Mutation(
        "Half of a line that a full disk took stays in the log",
        "harness/results/events.py",
        "os.truncate(self._path, self._bytes)",
        "os.truncate(self._path, self._path.stat().st_size)",
        ("tests/results/test_events.py",),
        ("tests/results/test_events.py::test_a_disk_that_takes_half_of_a_line_leaves_the_log_as_it_was",),
    ),
    Mutation(
        "A file takes the place of another before it is on the disk",
        "harness/atomic.py",
        "os.fsync(stream.fileno())",
        "stream.fileno()",
        ("tests/results/test_csv.py",),
        ("tests/results/test_csv.py::test_a_file_is_on_the_disk_before_it_takes_the_place_of_another",),
    ),
    Mutation(
        "Balanced accuracy is the mean precision instead of the mean recall",
        "harness/results/metrics.py",
        "return _mean_over_classes(right, true)",
        "return _mean_over_classes(right, _)",
        ("tests/results/test_metrics.py",),
        ("tests/results/test_metrics.py::test_every_metric_is_scikit_learns",),
    ),
    Mutation(
        "A trial that diverged keeps the score of an earlier epoch",
        "harness/training/record_builder.py",
        'self.best if state in ("complete", "pruned") else None',
        "self.best",
        ("tests/training/test_trial.py::test_what_diverged_after_a_good_epoch_has_no_score",),
        ("tests/training/test_trial.py::test_what_diverged_after_a_good_epoch_has_no_score",),
    ),
    # --- training
    Mutation(
        "The schedule of the rates begins anew in every epoch",
        "harness/training/loop.py",
        "lr_factor((epoch - 1) * len(order) + index,",
        "lr_factor(index,",
        ("tests/training/test_parameters.py::test_a_value_in_the_file_reaches_the_training_step",),
        ("tests/training/test_parameters.py::test_a_value_in_the_file_reaches_the_training_step",),
    ),
    Mutation(
        "The contract compares frozen parameters and forgets frozen buffers",
        "harness/training/contract.py",
        "if name not in training and name not in movable",
        "if name not in training and name in parameters",
        ("tests/training/test_contract.py",),
        ("tests/training/test_contract.py::test_statistics_that_drift_in_a_frozen_stage_fail_the_trial",),
    ),
    Mutation(
        "Stages of other values read the shared activations of these",
        "harness/training/frozen_features/features.py",
        '"weights": initial.identity',
        '"weights": model.weights_name',
        (
            "tests/training/test_frozen_entries.py::test_other_images_other_weights_and_another_number_of_threads_are_other_entries",
        ),
        (
            "tests/training/test_frozen_entries.py::test_other_images_other_weights_and_another_number_of_threads_are_other_entries",
        ),
    ),
    Mutation(
        "An image that is drawn twice in an epoch shows one view where activations are shared",
        "harness/training/frozen_features/features.py",
        'augmentation.draw("flips", self.seed, epoch, keys, occurrence)',
        'augmentation.draw("flips", self.seed, epoch, keys)',
        ("tests/training/test_frozen_features.py::test_parameters_of_the_last_part_share_exactly",),
        ("tests/training/test_frozen_features.py::test_parameters_of_the_last_part_share_exactly",),
    ),
    Mutation(
        "A checkpoint lacks the statistics that were estimated anew",
        "harness/training/checkpoint.py",
        "if POLICIES[config.batchnorm].moves_buffers:",
        'if POLICIES[config.batchnorm].statistics != "kept":',
        ("tests/training/test_trial.py::test_a_checkpoint_gives_the_best_epochs_predictions_again",),
        ("tests/training/test_trial.py::test_a_checkpoint_gives_the_best_epochs_predictions_again",),
    ),
    Mutation(
        "The first step of the warm-up has a rate of zero",
        "harness/training/optimizers.py",
        "(step + 1) / (warmup + 1)",
        "step / (warmup + 1)",
        ("tests/training/test_trial.py::test_the_schedule_rises_then_falls_towards_zero",),
        ("tests/training/test_trial.py::test_the_schedule_rises_then_falls_towards_zero",),
    ),
    Mutation(
        "A probe takes another arithmetic for a gain that it does not have",
        "harness/training/precision.py",
        "best[FLOAT32] / best[fastest] >= MIN_SPEEDUP",
        "best[fastest] / best[FLOAT32] <= MIN_SPEEDUP",
        ("tests/training/test_precision.py",),
        ("tests/training/test_precision.py::test_a_small_gain_is_not_worth_the_rounding",),
    ),
    Mutation(
        "A batch falls into parts of a single image",
        "harness/training/out_of_memory.py",
        "if batch_size // len(split_batch(batch_size, half)) < MIN_PART_SIZE:",
        "if half < MIN_PART_SIZE:",
        ("tests/training/test_out_of_memory.py",),
        (
            "tests/training/test_out_of_memory.py::test_who_cannot_be_replaced_goes_on_to_halves_and_odd_batches_never_leave_one_image",
        ),
    ),
    Mutation(
        "The averages stay in the model that trains on",
        "harness/training/ema.py",
        "self._write(own)",
        "del own",
        ("tests/training/test_ema_and_patience.py",),
        ("tests/training/test_ema_and_patience.py::test_the_decay_rises_to_its_full_value",),
    ),
    # --- tracking
    Mutation(
        "After a crash MLflow is sent metrics that it has",
        "harness/tracking/replay.py",
        "doubtful=key in self._doubtful",
        "doubtful=False",
        ("tests/tracking/test_replay.py",),
        ("tests/tracking/test_replay.py::test_a_failure_of_any_single_call_changes_nothing_in_the_end",),
    ),
    Mutation(
        "The values of all epochs arrive in MLflow at one step",
        "harness/tracking/mapping.py",
        "points(values, clock, epoch.epoch)",
        "points(values, clock)",
        ("tests/tracking/test_mapping.py",),
        ("tests/tracking/test_mapping.py::test_every_epoch_gives_each_metric_once_at_its_step",),
    ),
    Mutation(
        "A pruned trial may be shown as a strategy's best",
        "harness/results/study_state.py",
        'return record.state == "complete" and record.score is not None',
        "return record.score is not None",
        ("tests/results/test_study_state.py",),
        ("tests/results/test_study_state.py::test_a_pruned_trial_is_never_the_best",),
    ),
    # --- report
    Mutation(
        "A lower log-loss counts for the other side",
        "harness/analysis/statistics.py",
        "sign_of(objective) if len(sides) > 1 else 1",
        "1",
        ("tests/analysis/test_statistics.py::test_a_positive_difference_favours_b_for_every_objective",),
        ("tests/analysis/test_statistics.py::test_a_positive_difference_favours_b_for_every_objective",),
    ),
    Mutation(
        "The spread over the seeds is divided by their number, and the interval is too narrow",
        "harness/analysis/statistics.py",
        "values.var(ddof=1)",
        "values.var()",
        ("tests/analysis/test_statistics.py",),
        ("tests/analysis/test_statistics.py::test_the_interval_has_the_quantiles_of_few_seeds_and_of_the_images",),
    ),
    Mutation(
        "The jackknife leaves out images of other groups",
        "harness/analysis/jackknife.py",
        "np.add.reduceat(kinds[kind_of[order]], starts, axis=0)",
        "np.add.reduceat(kinds[kind_of], starts, axis=0)",
        ("tests/analysis/test_statistics.py::test_leaving_a_group_out_gives_the_metric_of_the_other_images",),
        ("tests/analysis/test_statistics.py::test_leaving_a_group_out_gives_the_metric_of_the_other_images",),
    ),
    Mutation(
        "Further pairs of strategies are read at 95 % instead of Holm's levels",
        "harness/analysis/verdict.py",
        "judge(found[pair], study.confirmation.equivalence, levels[pair])",
        "judge(found[pair], study.confirmation.equivalence)",
        ("tests/analysis/test_verdict.py",),
        ("tests/analysis/test_verdict.py::test_further_pairs_are_read_at_holm_s_levels",),
    ),
    Mutation(
        "A default that is also the best is not scored as the default",
        "harness/study/confirm.py",
        '["default"] * ("default" in candidate.role)',
        '["default"] * (candidate.role == "default")',
        ("tests/study/test_study.py",),
        (),
    ),
    Mutation(
        "Passwords in addresses reach the page",
        "harness/analysis/wording.py",
        "text = masked(text)",
        "text = str(text)",
        ("tests/analysis/test_wording.py", "tests/analysis/test_summary.py"),
        ("tests/analysis/test_wording.py::test_paths_keep_their_last_part_and_addresses_lose_their_password",),
    ),
    Mutation(
        "Names reach the page without being escaped",
        "harness/report/html.py",
        "autoescape=True",
        "autoescape=False",
        ("tests/report/test_page.py::test_a_hostile_class_name_is_shown_as_text",),
        ("tests/report/test_page.py::test_a_hostile_class_name_is_shown_as_text",),
    ),
    # --- study
    Mutation(
        "A trial that diverged teaches the sampler nothing",
        "harness/search/optuna_params.py",
        '"diverged": TrialState.PRUNED',
        '"diverged": TrialState.FAIL',
        ("tests/search/test_strategy_search.py::test_a_diverged_trial_teaches_the_sampler_and_a_failed_one_does_not",),
        ("tests/search/test_strategy_search.py::test_a_diverged_trial_teaches_the_sampler_and_a_failed_one_does_not",),
    ),
    Mutation(
        "When time is up, a strategy may have had fewer slots than another",
        "harness/study/search_loop.py",
        "not any(k in self._state.slots[s] for s in self._study.strategies)",
        "not all(k in self._history.slots[s] for s in self._study.strategies)",
        ("tests/study/test_study.py::test_time_leaves_room_for_the_confirmation",),
        ("tests/study/test_study.py::test_time_leaves_room_for_the_confirmation",),
    ),
    Mutation(
        "Workers hold the labels of the test part",
        "harness/study/prepare.py",
        'labels[parts == "test"] = -1',
        'labels[parts == "unused"] = -1',
        ("tests/study/test_study.py::test_workers_never_see_the_labels_of_the_test_part",),
        ("tests/study/test_study.py::test_workers_never_see_the_labels_of_the_test_part",),
    ),
    Mutation(
        "Every candidate is scored on the test part, not the winner alone",
        "harness/study/confirm.py",
        '["winner"] * (candidate is best)',
        '["winner"] * (best is not None)',
        ("tests/study/test_study.py::test_of_several_candidates_only_the_winner_and_the_default_are_scored_on_test",),
        ("tests/study/test_study.py::test_of_several_candidates_only_the_winner_and_the_default_are_scored_on_test",),
    ),
    Mutation(
        "All seeds of the confirmation are one",
        "harness/study/confirm.py",
        'derive(seed, "confirmation", index)',
        'derive(seed, "confirmation")',
        ("tests/study/test_study.py::test_confirmation_trains_the_best_and_the_default_over_the_seeds",),
        ("tests/study/test_study.py::test_confirmation_trains_the_best_and_the_default_over_the_seeds",),
    ),
    Mutation(
        "A trial that the coordinator's own end cut off loses an attempt",
        "harness/results/study_state.py",
        ".attempt = interrupted.attempt + died",
        ".attempt = interrupted.attempt + 1",
        ("tests/study/test_resume.py::test_an_interrupted_study_leaves_both_stores_consistent_and_continues",),
        ("tests/study/test_resume.py::test_an_interrupted_study_leaves_both_stores_consistent_and_continues",),
    ),
    Mutation(
        "A slot whose workers die is tried once too often",
        "harness/study/session.py",
        "job.attempt >= MAX_ATTEMPTS",
        "job.attempt > MAX_ATTEMPTS",
        ("tests/study/test_resume.py::test_a_killed_worker_costs_an_attempt_and_three_fail_the_slot",),
        ("tests/study/test_resume.py::test_a_killed_worker_costs_an_attempt_and_three_fail_the_slot",),
    ),
    Mutation(
        "A part of the data is trained on in name only",
        "harness/study/explore.py",
        "fraction_split(index, fraction)",
        "confirmation_split(index)",
        ("tests/study/test_explore.py::test_a_part_of_the_data_is_trained_on_and_scored_on_the_same_test_images",),
        ("tests/study/test_explore.py::test_a_part_of_the_data_is_trained_on_and_scored_on_the_same_test_images",),
    ),
    Mutation(
        "A process with the number of one that is gone is taken for the study's owner",
        "harness/study/lock.py",
        "return None if is_other else process.pid",
        "return process.pid",
        ("tests/study/test_lock.py",),
        (
            "tests/study/test_lock.py"
            "::test_the_note_of_a_killed_process_names_nobody_although_its_number_is_in_use_again",
        ),
    ),
    # --- doctor and command line
    Mutation(
        "The doctor repairs a study while it runs",
        "harness/doctor/check.py",
        "            if fix:",
        "            if not fix:",
        ("tests/doctor/test_doctor.py::test_a_running_study_may_be_checked_and_is_not_repaired",),
        ("tests/doctor/test_doctor.py::test_a_running_study_may_be_checked_and_is_not_repaired",),
    ),
    Mutation(
        "Every error ends the command with 1",
        "harness/cli/__init__.py",
        "raise SystemExit(error.exit_code)",
        "raise SystemExit(1)",
        ("tests/cli/test_cli.py::test_wrong_use_is_one_clear_error_with_its_code",),
        ("tests/cli/test_cli.py::test_wrong_use_is_one_clear_error_with_its_code",),
    ),
    # --- verdicts of few images
    Mutation(
        "Images that are all answered alike leave nothing open",
        "harness/analysis/unseen.py",
        "variance = float((weights**2 * imagined / 2).sum())",
        "variance = 1e-12",
        ("tests/analysis/test_statistics.py",),
        ("tests/analysis/test_statistics.py::test_few_images_that_answer_alike_decide_nothing",),
    ),
    Mutation(
        "A file of predictions counts whatever it holds",
        "harness/analysis/test_predictions.py",
        "if not same_metrics(metrics, event.metrics):",
        "if False:",
        ("tests/study/test_lost_predictions.py",),
        (
            "tests/study/test_lost_predictions.py::test_a_finished_study_scores_again_what_was_lost_and_keeps_its_verdict",
        ),
    ),
    Mutation(
        "A winner at chance is recommended",
        "harness/analysis/verdict.py",
        'if verdict["scores"][use.strategy]["learned"] is False:',
        "if False:",
        ("tests/analysis/test_verdict.py",),
        ("tests/analysis/test_verdict.py::test_a_winner_at_chance_is_not_recommended",),
    ),
    Mutation(
        "Of two sides that cost about the same the slightly cheaper one is recommended",
        "harness/analysis/verdict.py",
        "ratio < 1 / MARGIN",
        "ratio < 1",
        ("tests/analysis/test_verdict.py",),
        ("tests/analysis/test_verdict.py::test_measured_seconds_do_not_flip_the_advice",),
    ),
    Mutation(
        "An undecided verdict commands",
        "harness/analysis/verdict_text.py",
        "return _bet(verdict, use, objective)",
        'return f"Use {wording.STRATEGY[use]}."',
        ("tests/analysis/test_verdict.py",),
        (
            "tests/analysis/test_verdict.py"
            "::test_undecided_names_the_better_bet_and_what_would_decide_and_commands_nothing",
        ),
    ),
    Mutation(
        "Of equal L2 strengths a logistic head takes the weakest",
        "harness/training/logistic_head.py",
        "chosen is None or value > best:",
        "chosen is None or value >= best:",
        ("tests/training/test_logistic_head.py",),
        (
            "tests/training/test_logistic_head.py"
            "::test_the_strength_is_the_best_on_validation_and_the_stronger_of_equal_ones",
        ),
    ),
)


@dataclass(frozen=True)
class Result:
    """What the tests said of one mutation."""

    number: int  # from 1
    name: str
    killer: str | None  # the test that failed; None: it survived
    seconds: float


def copy_tree(to: Path) -> None:
    """All that tests need. The environment is linked and looks new, or targets of the Makefile would make another."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT, ".venv"))
    if (ROOT / ".venv").exists():
        (to / ".venv").mkdir()
        for entry in (ROOT / ".venv").resolve().iterdir():
            (to / ".venv" / entry.name).symlink_to(entry)
        (to / ".venv" / ".installed").unlink(missing_ok=True)
        (to / ".venv" / ".installed").touch()


def environment(root: Path) -> dict[str, str]:
    """Of a test run whose package is that of the tree at `root`."""
    return {**os.environ, "PYTHONPATH": str(root), "GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "1"}


def check_import() -> None:
    """That a copy's package is what a run in it imports, also where another tree is installed for editing."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        root = Path(folder).resolve() / "tree"
        copy_tree(root)
        code = "import harness.errors; print(harness.errors.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment(root), capture_output=True, text=True, check=True
        )
        assert Path(done.stdout.strip()).is_relative_to(root), f"the package comes from {done.stdout.strip()}"


def run_tests(root: Path, tests: Sequence[str], seconds: float) -> str | None:
    """The first test that fails in the tree at `root`; None where all pass.

    Raises:
        RuntimeError: pytest ran no test.
    """
    place = [f"--basetemp={root.parent / 'temporary'}"]
    process = subprocess.Popen(
        # In a folder of its own: two runs that clear the same old folders at once disturb each other.
        [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", *place, *tests],
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no end within {seconds:.0f} s"
    if process.returncode == PASSED:
        return None
    found = FAILED.search(said)
    if found is None or process.returncode not in (SOME_FAILED, STOPPED):
        raise RuntimeError(f"pytest ended with {process.returncode}:\n{said[-2000:]}")
    return found[1]


def there(root: Path, tests: Sequence[str]) -> list[str]:
    """Of these tests those that are there; the whole file where a test of it is gone."""
    found: dict[str, None] = {}
    for test in tests:
        file, _, name = test.partition("::")
        if (root / file).exists():
            text = (root / file).read_text(encoding="utf-8")
            found[test if not name or f"def {name}(" in text else file] = None
    return list(found)


def examine(number: int, mutation: Mutation, suite: bool, seconds: float) -> Result:
    """Apply one mutation to a copy and run its tests."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve() / "tree"
        copy_tree(root)
        mutation.apply(root)
        first = there(root, mutation.first)
        killer = run_tests(root, first, seconds) if first else None  # of no test pytest would make all
        if killer is None and suite:
            killer = run_tests(root, (), 20 * seconds)
    result = Result(number, mutation.name, killer, round(time.monotonic() - started, 1))
    print(line(result), flush=True)
    return result


def without_mutation(results: Sequence[Result], seconds: float) -> list[Result]:
    """The results, where a test that fails in an unchanged copy too has killed nothing."""
    killers = sorted({result.killer for result in results if result.killer and "::" in result.killer})
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve() / "tree"
        copy_tree(root)
        while killers and (failed := run_tests(root, killers, seconds * len(killers))):
            print(f"{failed} fails without a mutation too", flush=True)
            results = [dataclasses.replace(r, killer=None) if r.killer == failed else r for r in results]
            if failed not in killers:
                raise RuntimeError(f"the unchanged package: {failed}")
            killers.remove(failed)
    return list(results)


def line(result: Result) -> str:
    """A row of the table."""
    verdict = "SURVIVED" if result.killer is None else f"killed by {result.killer}"
    return f"{result.number:>3}  {result.name}  ({result.seconds:.0f} s)\n     {verdict}"


def chosen(wanted: Sequence[str]) -> list[tuple[int, Mutation]]:
    """The mutations of these numbers, or whose name holds one of these texts; all where nothing is wanted."""
    every = list(enumerate(MUTATIONS, 1))
    if not wanted:
        return every
    numbers = {int(text) for text in wanted if text.isdigit()}
    texts = [text.casefold() for text in wanted if not text.isdigit()]
    return [(n, m) for n, m in every if n in numbers or any(text in m.name.casefold() for text in texts)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Put small errors into a copy of the package; see that tests fail.")
    parser.add_argument("wanted", nargs="*", metavar="NUMBER|NAME", help="mutations to try; all without any")
    parser.add_argument("--list", action="store_true", help="name the mutations and run nothing")
    parser.add_argument("--suite", action="store_true", help="run the whole suite where the first tests all pass")
    parser.add_argument("--jobs", type=int, default=1, help="mutations at once")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for the first tests; a hang is a failure")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    here = chosen(given.wanted)
    if not here:
        parser.error("no mutation has such a number or name")
    if given.list:
        for number, mutation in here:
            print(f"{number:>3}  {mutation.name}\n     {mutation.file}: {' '.join(mutation.first)}")
        return 0
    check_import()
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda pair: examine(*pair, given.suite, given.timeout), here))
    results = without_mutation(results, given.timeout)
    if given.json:
        given.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1) + "\n")
    survived = [result for result in results if result.killer is None]
    print("\n" + "\n".join(map(line, results)))
    print(f"\n{len(results) - len(survived)} of {len(results)} were killed.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
