from __future__ import annotations

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from canned_executor import Script
from damaging import remove_database
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from small_study import Watching, World, draw_images, records, runs

from harness.errors import DataError
from harness.results.event_types import (
    ConfirmationSelected,
    ModelLogged,
    SearchFinished,
    StudyCreated,
    TestScored,
    TrialFinished,
    TrialStarted,
)
from harness.results.paths import home
from harness.results.records import TrialJob
from harness.results.study_state import StudyState
from harness.study import export
from harness.training.trial_data import TrialData


def test_each_strategy_fills_the_same_number_of_slots_in_turn(at_home: World) -> None:
    jobs = [began.job for began in at_home.of(TrialStarted)]
    order = [(job.slot, job.strategy) for job in jobs if job.kind == "search"]
    assert order == [(k, s) for k in range(2) for s in ("feature_extraction", "fine_tuning")]


def test_the_first_slot_is_the_default(at_home: World) -> None:
    first = {r.strategy: r for r in records(at_home) if r.kind == "search" and r.slot == 0}
    assert first["feature_extraction"].config.head_lr == 1e-3
    assert (first["fine_tuning"].config.unfreeze_depth, first["fine_tuning"].config.backbone_lr) == (3, 1e-4)


def test_no_configuration_is_trained_twice(at_home: World) -> None:
    configs = [r.config for r in records(at_home) if r.kind == "search"]
    assert len(set(configs)) == len(configs) == 4


def test_confirmation_trains_the_best_and_the_default_over_the_seeds(at_home: World) -> None:
    state = StudyState.of(at_home.events())
    [selected] = at_home.of(ConfirmationSelected)
    for strategy, group in selected.configs.items():
        assert group[0].config == state.ranked(strategy)[0].config
        assert sum("default" in chosen.role for chosen in group) == 1
        for chosen in group:
            seeds = {r.slot for r in records(at_home) if r.kind == "confirmation" and r.config == chosen.config}
            assert seeds == {0, 1}
    confirmed = [r for r in records(at_home) if r.kind == "confirmation"]
    assert len({(r.slot, r.seed) for r in confirmed}) == len({r.seed for r in confirmed}) == 2  # shared by all


def test_a_confirmation_seed_moves_the_split_and_keeps_the_test_part(at_home: World) -> None:
    from harness.study.prepare import prepare

    prepared = prepare(at_home.load(), ["cpu"], lambda *a: None)
    splits = {name: rows for name, rows in prepared.context.splits.items() if "@" not in name}  # the whole parts
    assert set(splits) == {"search", "confirmation/0", "confirmation/1"}
    groups = prepared.dataset.table["group"].to_numpy()
    for train, validation in splits.values():
        assert not set(train) & set(validation)
        assert not set(train) & set(prepared.test_rows)
        assert not set(groups[train]) & set(groups[validation])
        assert not set(groups[train]) & set(groups[prepared.test_rows])
    assert len({tuple(train) for train, _ in splits.values()}) == 3


def test_workers_never_see_the_labels_of_the_test_part(at_home: World) -> None:
    from harness.study.prepare import prepare

    prepared = prepare(at_home.load(), ["cpu"], lambda *a: None)
    assert (prepared.context.labels[prepared.test_rows] == -1).all()
    manifest = pd.read_csv(at_home.folder().manifest)
    assert manifest.loc[manifest["split"] == "test", "label"].isna().all()
    assert manifest.loc[manifest["split"] != "test", "label"].notna().all()


def test_only_winners_and_defaults_are_scored_on_test_once(at_home: World) -> None:
    models = [(scored.strategy, scored.config_key, scored.seed_index) for scored in at_home.of(TestScored)]
    assert len(models) == len(set(models))
    finished = [e for e in at_home.events() if isinstance(e.data, TrialFinished)]
    last_trained = max(e.seq for e in finished if e.data.record.kind in ("search", "confirmation"))
    assert min(e.seq for e in at_home.events() if isinstance(e.data, TestScored)) > last_trained
    for scored in at_home.of(TestScored):
        with np.load(at_home.folder().predictions / scored.predictions) as stored:
            right = stored["probabilities"].argmax(1) == stored["labels"]
            assert scored.metrics["accuracy"] == pytest.approx(right.mean())


def test_of_several_candidates_only_the_winner_and_the_default_are_scored_on_test(canned_world: World) -> None:
    canned_world.write(strategies=["fine_tuning"], trials=2, confirmation={"top": 2, "seeds": 2})
    canned_world.run()
    [selected] = canned_world.of(ConfirmationSelected)
    for strategy, group in selected.configs.items():
        own = [r for r in records(canned_world) if r.kind == "confirmation" and r.strategy == strategy]
        means = {r.config.key(): np.mean([o.score for o in own if o.config == r.config]) for r in own}
        assert len(means) == len(group) == 2
        scored = {one.config_key: one.role for one in canned_world.of(TestScored) if one.strategy == strategy}
        winner = max(means, key=lambda key: means[key])
        default = next(chosen.config.key() for chosen in group if "default" in chosen.role)
        assert scored == ({winner: "winner+default"} if winner == default else {winner: "winner", default: "default"})


def test_the_report_and_its_machine_readable_files_are_there(at_home: World) -> None:
    folder = at_home.root / "reports" / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["schema"] == 1
    assert summary["verdict"]["outcome"] in ("fine_tuning", "feature_extraction", "equal", "undecided")
    assert summary["verdict"]["sentence"] in (folder / "index.html").read_text()
    assert summary["strategies"]["fine_tuning"]["trials"]["complete"] == 2
    assert len(pd.read_csv(folder / "trials.csv")) >= 4
    assert str(at_home.root) not in (folder / "index.html").read_text()
    assert str(at_home.root) not in (folder / "summary.json").read_text()


def test_optuna_and_mlflow_hold_what_the_log_holds(at_home: World) -> None:
    logged = {r.trial_id: r for r in records(at_home)}
    times: dict[str, dict[str, datetime]] = defaultdict(dict)
    for event in at_home.events():
        if isinstance(event.data, TrialStarted | TrialFinished):
            of = event.data.job if isinstance(event.data, TrialStarted) else event.data.record
            times[of.trial_id][event.kind] = datetime.fromisoformat(event.at).astimezone().replace(tzinfo=None)
    journal = JournalStorage(JournalFileBackend(str(at_home.folder().optuna_log)))
    ran = {run.data.tags["harness.key"]: run.info.run_id for run in runs("tiny", "search")}
    for strategy in ("feature_extraction", "fine_tuning"):
        study = optuna.load_study(study_name=f"tiny/{strategy}", storage=journal)
        assert study.metric_names == ["balanced_accuracy"]
        [created] = at_home.of(StudyCreated)
        wanted = {"strategy": strategy, "direction": "maximize", "objective": "balanced_accuracy", "seed": 0}
        wanted["data_digest"] = created.fingerprint["data digest"]
        assert wanted.items() <= study.user_attrs.items() and study.user_attrs["harness.study_id"]
        mine = {k: r for k, r in logged.items() if r.kind == "search" and r.strategy == strategy}
        trials = {
            t.user_attrs["harness.key"].split("#")[0]: t for t in study.trials if "~" not in t.user_attrs["harness.key"]
        }
        assert len(trials) == len(mine) == 2
        for trial_id, trial in trials.items():
            record = mine[trial_id]
            assert (trial.state, trial.value) == (TrialState.COMPLETE, record.score)
            assert trial.datetime_start == times[trial_id]["trial_started"]
            assert trial.datetime_complete == times[trial_id]["trial_finished"]
            facts = dict(trial.user_attrs)
            run_id = facts.pop("mlflow_run_id", None)  # of the trials whose run MLflow had when they ended
            assert run_id in (None, ran[facts["harness.key"]])
            assert facts == {
                "harness.key": f"{trial_id}#1",
                "state": "complete",
                "config_key": record.config.key(),
                "seconds_alone": record.seconds_alone,
                "best_epoch": record.best_epoch,
                "trainable_share": record.trainable_share,
            }
    shown = {
        run.data.tags["harness.key"].split("#")[0]: run
        for kind in ("search", "confirmation", "data_size")
        for run in runs("tiny", kind)
    }
    assert set(shown) == set(logged)
    for trial_id, run in shown.items():
        assert run.info.status == "FINISHED"
        assert run.data.metrics["score"] == logged[trial_id].score
        assert float(run.data.params["head_lr"]) == logged[trial_id].config.head_lr


def test_the_logged_model_gives_the_validation_score_again(at_home: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import torch

    from harness.results.metrics import score
    from harness.results.names import confirmation_split
    from harness.study.prepare import prepare

    [logged] = at_home.of(ModelLogged)
    trial = next(r for r in records(at_home) if r.trial_id == logged.trial_id)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{home() / 'mlflow.db'}")
    model = mlflow.pytorch.load_model(logged.uri)
    prepared = prepare(at_home.load(), ["cpu"], lambda *a: None)
    data = prepared.context.data(trial.config.backbone, confirmation_split(trial.slot))
    with torch.inference_mode():
        logits = model(data.batch(data.validation, torch.device("cpu")))
    again = score("balanced_accuracy", logits.softmax(1).numpy(), data.labels[data.validation])
    assert again == pytest.approx(trial.score)
    assert again == pytest.approx(logged.validation_score)


def test_a_finished_study_says_so_and_trains_nothing(at_home: World) -> None:
    watching = Watching()
    before = len(at_home.events())
    outcome = at_home.run(watching=watching)
    assert outcome.already_finished
    assert outcome.sentence
    assert watching.jobs == []
    assert len(at_home.events()) == before


def test_a_space_that_is_used_up_is_exhausted_and_says_so(canned_world: World) -> None:
    canned_world.write(
        strategies=["feature_extraction"],
        trials=4,
        search={"backbone": "mobilenet_v3_small", "head_lr": [1e-3, 1e-2], "batch_size": 16},
    )
    watching = Watching()
    outcome = canned_world.run(watching=watching)
    assert len([r for r in watching.records if r.kind == "search"]) == 2
    assert any("exhausted" in text for text in watching.texts)
    assert outcome.sentence is None
    assert outcome.reason


def test_own_configurations_come_right_after_the_default(canned_world: World) -> None:
    canned_world.write(**{"try": [{"strategy": "fine_tuning", "unfreeze_depth": 1, "head_lr": 0.05}], "trials": 2})
    watching = Watching()
    canned_world.run(watching=watching)
    second = next(r for r in watching.records if r.trial_id == "fine_tuning/1")
    assert (second.config.unfreeze_depth, second.config.head_lr) == (1, 0.05)


def test_time_leaves_room_for_the_confirmation(canned_world: World, canned: Script) -> None:
    """The second trial of the first strategy is so slow that the time is up; the other strategy has its second too."""
    canned.seconds = lambda job: 200 if job.trial_id == "feature_extraction/1" else 100
    canned_world.write(time="1000s", trials=50)  # four confirmations of 100 s + 100 s, or of 200 s + 100 s
    watching = Watching()
    outcome = canned_world.run(watching=watching)
    searched = [(r.strategy, r.slot) for r in watching.records if r.kind == "search"]
    assert searched == [(s, k) for k in range(2) for s in ("feature_extraction", "fine_tuning")]
    assert outcome.sentence
    [finished] = canned_world.of(SearchFinished)
    assert finished.reason == "time"


def test_own_data_make_another_study_beside_the_first(canned_world: World, tmp_path: Path) -> None:
    canned_world.write(trials=1)
    outcome = canned_world.run(data=str(draw_other(tmp_path / "mine")))
    assert outcome.name.startswith("tiny-")
    assert len(outcome.name) == len("tiny-") + 8


def draw_other(root: Path) -> Path:
    draw_images(root)
    next(root.rglob("*.png")).unlink()
    return root


def test_a_batch_larger_than_the_training_part_is_refused(world: World) -> None:
    world.write(batch_size=[16, 512], search={"backbone": "mobilenet_v3_small"})
    with pytest.raises(DataError, match="512"):
        world.run()
    assert not world.folder().path.exists()


def test_a_study_whose_images_are_missing_says_which_it_wants(world: World) -> None:
    world.write(data={"source": None, "wanted": "the Chula RBC-12 crops."})
    with pytest.raises(DataError, match="Chula RBC-12") as caught:
        world.run()
    assert "DATA=" in str(caught.value)


def test_progress_on_a_pipe_is_plain_lines_and_on_a_terminal_has_bars(canned_world: World) -> None:
    import io

    from rich.console import Console

    from harness.cli.progress import Watcher

    canned_world.write(trials=1)
    shown = {}
    for name, terminal in (("plain", False), ("bars", True)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=140, no_color=True)
        with Watcher(console, "balanced_accuracy") as watcher:
            canned_world.run(watching=watcher, save_as=name)  # type: ignore[arg-type]
        shown[name] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "feature_extraction 0 · mobilenet_v3_small: complete" in shown["plain"]
    assert "best so far" in shown["plain"]
    assert "\x1b" not in shown["plain"]
    assert "Confirmation" in shown["bars"]
    assert "\x1b[?25l" in shown["bars"]


@pytest.fixture
def not_logged(copied: World, canned: Script, empty_database: Path) -> Callable[[], list[str]]:
    """What is said when the model of a finished study is missing in MLflow, and is not logged when it runs again."""
    before = copied.of(ModelLogged)
    remove_database("mlflow.db")
    shutil.copyfile(empty_database, home() / "mlflow.db")

    def run() -> list[str]:
        watching = Watching()
        outcome = copied.run(watching=watching)
        assert outcome.already_finished and outcome.report.exists()
        assert copied.of(ModelLogged) == before
        return watching.texts

    return run


def test_a_model_whose_classes_changed_order_is_not_logged(
    not_logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint remembers the classes it was trained on; here the export would name them otherwise."""
    real = export.restore

    def turned(job: TrialJob, data: TrialData, *rest: Any) -> Any:
        return real(job, dataclasses.replace(data, classes=data.classes[::-1]), *rest)

    monkeypatch.setattr(export, "restore", turned)
    assert any("was not logged: class 0 was 'blue' in training but is 'red' now" in text for text in not_logged())


def test_a_model_that_answers_otherwise_than_its_trial_is_not_logged(
    not_logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.Deployable.forward
    monkeypatch.setattr(export.Deployable, "forward", lambda self, images: real(self, images).flip(1))
    assert any("away from the trained model's" in text for text in not_logged())
