from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from small_study import Watching, World, draw_images

from harness.errors import ConfigError, DataError, HarnessError, Interrupted, StudyHeldError
from harness.results.home import home
from harness.results.records import TrialRecord
from harness.study.coordinator import held
from harness.study.history import History


def records(world: World, name: str = "tiny") -> list[TrialRecord]:
    return [TrialRecord.from_json(e.data) for e in world.events(name, "trial_finished")]


def runs(name: str, kind: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'"))


def test_each_strategy_fills_the_same_number_of_slots_in_turn(at_home: World) -> None:
    order = [
        (e.data["slot"], e.data["strategy"])
        for e in at_home.events("tiny", "trial_started")
        if e.data["kind"] == "search"
    ]
    assert order == [(k, s) for k in range(3) for s in ("feature_extraction", "fine_tuning")]


def test_the_first_slot_is_the_default(at_home: World) -> None:
    first = {r.strategy: r for r in records(at_home) if r.kind == "search" and r.slot == 0}
    assert first["feature_extraction"].config.head_lr == 1e-3
    assert (first["fine_tuning"].config.unfreeze_depth, first["fine_tuning"].config.backbone_lr) == (3, 1e-4)


def test_no_configuration_is_trained_twice(at_home: World) -> None:
    configs = [r.config for r in records(at_home) if r.kind == "search"]
    assert len(set(configs)) == len(configs) == 6


def test_confirmation_trains_the_best_and_the_default_over_the_seeds(at_home: World) -> None:
    history = History.of(at_home.events(), "balanced_accuracy")
    [selected] = at_home.events("tiny", "confirmation_selected")
    for strategy, group in selected.data["configs"].items():
        assert group[0]["config"] == history.ranked(strategy)[0].config.to_json()
        assert sum("default" in chosen["role"] for chosen in group) == 1
        for chosen in group:
            seeds = {
                r.slot for r in records(at_home) if r.kind == "confirmation" and r.config.to_json() == chosen["config"]
            }
            assert seeds == {0, 1}


def test_a_confirmation_seed_moves_the_split_and_keeps_the_test_part(at_home: World) -> None:
    from harness.study.prepare import prepare

    prepared = prepare(at_home.load(), ["cpu"], lambda *a: None)
    splits = prepared.context.splits
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
    scored = [
        (e.data["strategy"], e.data["config_key"], e.data["seed_index"]) for e in at_home.events("tiny", "test_scored")
    ]
    assert len(scored) == len(set(scored))
    last_trained = max(e.seq for e in at_home.events("tiny", "trial_finished"))
    assert min(e.seq for e in at_home.events("tiny", "test_scored")) > last_trained
    for event in at_home.events("tiny", "test_scored"):
        with np.load(at_home.folder().predictions / event.data["predictions"]) as stored:
            right = stored["probabilities"].argmax(1) == stored["labels"]
            assert event.data["metrics"]["accuracy"] == pytest.approx(right.mean())


def test_the_report_and_its_machine_readable_files_are_there(at_home: World) -> None:
    folder = at_home.root / "reports" / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["schema"] == 1
    assert summary["verdict"]["outcome"] in ("fine_tuning", "feature_extraction", "equal", "undecided")
    assert summary["verdict"]["sentence"] in (folder / "index.html").read_text()
    assert summary["strategies"]["fine_tuning"]["trials"]["complete"] == 3
    assert len(pd.read_csv(folder / "trials.csv")) >= 6
    assert str(at_home.root) not in (folder / "index.html").read_text()
    assert str(at_home.root) not in (folder / "summary.json").read_text()


def test_optuna_and_mlflow_hold_what_the_log_holds(at_home: World) -> None:
    logged = {r.trial_id: r for r in records(at_home)}
    storage = f"sqlite:///{home() / 'optuna.db'}"
    for strategy in ("feature_extraction", "fine_tuning"):
        study = optuna.load_study(study_name=f"tiny/{strategy}", storage=storage)
        complete = [t for t in study.trials if t.state == TrialState.COMPLETE and "harness.key" in t.user_attrs]
        assert {t.user_attrs["harness.key"].split("#")[0]: t.value for t in complete} == {
            k: r.score for k, r in logged.items() if r.kind == "search" and r.strategy == strategy
        }
    shown = {
        run.data.tags["harness.key"].split("#")[0]: run for run in runs("tiny", "search") + runs("tiny", "confirmation")
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
    from harness.study.prepare import confirmation_split, prepare

    [event] = at_home.events("tiny", "model_logged")
    trial = next(r for r in records(at_home) if r.trial_id == event.data["trial_id"])
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{home() / 'mlflow.db'}")
    model = mlflow.pytorch.load_model(event.data["uri"])
    prepared = prepare(at_home.load(), ["cpu"], lambda *a: None)
    data = prepared.context.data(trial.config.backbone, confirmation_split(trial.slot))
    with torch.inference_mode():
        logits = model(data.batch(data.validation, torch.device("cpu")))
    again = score("balanced_accuracy", logits.softmax(1).numpy(), data.labels[data.validation])
    assert again == pytest.approx(trial.score)
    assert again == pytest.approx(event.data["validation_score"])


def test_a_finished_study_says_so_and_trains_nothing(at_home: World) -> None:
    watching = Watching()
    before = len(at_home.events())
    outcome = at_home.run(watching=watching)
    assert outcome.already_finished
    assert outcome.sentence
    assert watching.jobs == []
    assert len(at_home.events()) == before


def test_an_interrupted_study_leaves_both_stores_consistent_and_continues(world: World) -> None:
    def stop(job: Any, record: Any) -> None:
        if job.trial_id == "fine_tuning/1":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        world.run(watching=Watching(on_epoch=stop))
    assert caught.value.exit_code == 130
    before = records(world)
    assert [r.trial_id for r in before] == ["feature_extraction/0", "fine_tuning/0", "feature_extraction/1"]
    study = optuna.load_study(study_name="tiny/fine_tuning", storage=f"sqlite:///{home() / 'optuna.db'}")
    assert all(t.state.is_finished() for t in study.trials)
    assert all(run.info.status in ("FINISHED", "KILLED") for run in runs("tiny", "search"))
    assert (world.root / "reports" / "tiny" / "index.html").exists()

    world.run()
    after = records(world)
    assert after[: len(before)] == before
    ids = [r.trial_id for r in after]
    assert len(ids) == len(set(ids))
    assert {run.info.status for run in runs("tiny", "search")} <= {"FINISHED", "KILLED"}


def test_a_resumed_study_has_the_numbers_of_an_uninterrupted_one(
    at_home: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {r.trial_id: (r.config, r.score, [e.train_loss for e in r.epochs]) for r in records(at_home)}
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "again"))
    monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "again-reports"))
    for stop_at in ("feature_extraction/0", "fine_tuning/1", "confirmation/"):

        def stop(job: Any, record: Any, stop_at: str = stop_at) -> None:
            if job.trial_id.startswith(stop_at):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted) as caught:
            at_home.run(watching=Watching(on_epoch=stop))
        assert caught.value.exit_code == 143
    at_home.run()
    assert {r.trial_id: (r.config, r.score, [e.train_loss for e in r.epochs]) for r in records(at_home)} == whole


def test_more_trials_continue_a_finished_study_and_the_first_verdict_stays(world: World) -> None:
    world.write(trials=1)
    world.run()
    world.write(trials=2)
    watching = Watching()
    world.run(watching=watching)
    searched = [r.trial_id for r in watching.records if r.kind == "search"]
    assert searched == ["feature_extraction/1", "fine_tuning/1"]
    looks = [e.data["look"] for e in world.events("tiny", "verdict")]
    assert looks == [1, 2]
    summary = json.loads((world.root / "reports" / "tiny" / "summary.json").read_text())
    assert summary["verdict"]["test_looks"] == 2


def test_what_would_change_numbers_is_refused_field_by_field_and_nothing_is_written(world: World) -> None:
    world.write(trials=1)
    world.run()
    before = {p: p.stat().st_mtime_ns for p in world.folder().path.rglob("*") if p.is_file()}
    world.write(trials=1, epochs=2, seed=4)
    with pytest.raises(ConfigError) as caught:
        world.run()
    assert caught.value.exit_code == 2
    assert "epochs: was 1, is 2" in str(caught.value)
    assert "seed: was 0, is 4" in str(caught.value)
    assert "AS=newname" in str(caught.value)
    assert {p: p.stat().st_mtime_ns for p in world.folder().path.rglob("*") if p.is_file()} == before


def test_what_the_page_shows_may_change_on_a_finished_study(world: World) -> None:
    world.write(trials=1)
    world.run()
    page = world.root / "reports" / "tiny" / "index.html"
    assert "data:image" in page.read_text()
    world.write(trials=1, description="Another question?", report={"images": False})
    assert world.run().already_finished
    assert "Another question?" in page.read_text()
    assert "data:image/" not in page.read_text()


def test_changed_bytes_of_the_data_are_another_study(world: World) -> None:
    world.write(trials=1)
    world.run()
    next(world.images.rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match="data digest"):
        world.run()


def test_the_same_study_twice_is_refused_by_name(world: World) -> None:
    with held(world.folder()), pytest.raises(StudyHeldError, match=f"tiny is being run by process {os.getpid()}"):
        world.run()


def test_a_study_in_which_all_diverge_says_so_and_still_writes_its_report(world: World) -> None:
    world.write(search={"backbone": "mobilenet_v3_small", "head_lr": [1e30, 2e30], "batch_size": 16}, trials=2)
    with pytest.raises(HarnessError, match="smaller rates") as caught:
        world.run()
    assert caught.value.exit_code == 1
    assert {r.state for r in records(world)} == {"diverged"}
    assert (world.root / "reports" / "tiny" / "index.html").exists()


def test_a_space_that_is_used_up_is_exhausted_and_says_so(world: World) -> None:
    world.write(strategies=["feature_extraction"], trials=4, search={
        "backbone": "mobilenet_v3_small", "head_lr": [1e-3, 1e-2], "batch_size": 16,
    })  # fmt: skip
    watching = Watching()
    outcome = world.run(watching=watching)
    assert len([r for r in watching.records if r.kind == "search"]) == 2
    assert any("exhausted" in text for text in watching.texts)
    assert outcome.sentence is None
    assert outcome.reason


def test_own_configurations_come_right_after_the_default(world: World) -> None:
    world.write(**{"try": [{"strategy": "fine_tuning", "unfreeze_depth": 1, "head_lr": 0.05}], "trials": 2})
    watching = Watching()
    world.run(watching=watching)
    second = next(r for r in watching.records if r.trial_id == "fine_tuning/1")
    assert (second.config.unfreeze_depth, second.config.head_lr) == (1, 0.05)


def test_time_leaves_room_for_the_confirmation(world: World) -> None:
    world.write(time="1s", trials=50)
    watching = Watching()
    outcome = world.run(watching=watching)
    counts = {
        s: sum(r.strategy == s and r.kind == "search" for r in watching.records)
        for s in ("feature_extraction", "fine_tuning")
    }
    assert counts["feature_extraction"] == counts["fine_tuning"] < 10
    assert outcome.sentence
    [event] = world.events("tiny", "search_finished")
    assert event.data["reason"] == "time"


def test_own_data_make_another_study_beside_the_first(world: World, tmp_path: Path) -> None:
    world.write(trials=1)
    outcome = world.run(data=str(draw_other(tmp_path / "mine")))
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


def test_the_list_shows_a_study_and_rm_takes_it_away_everywhere(world: World) -> None:
    from harness.study.shelf import remove_study, shelf

    world.write(trials=1)
    world.run()
    [entry] = shelf()
    assert (entry.name, entry.state, entry.trials) == ("tiny", "finished", 2 + 4)
    with held(world.folder()):
        assert shelf()[0].state == "running"
        with pytest.raises(StudyHeldError):
            remove_study(world.folder())
    remove_study(world.folder())
    assert shelf() == []
    assert not (world.root / "reports" / "tiny").exists()
    assert optuna.get_all_study_names(f"sqlite:///{home() / 'optuna.db'}") == []
    watching = Watching()
    world.run(watching=watching)  # the name is free again, in MLflow too
    assert len(watching.records) == 6
    assert len(runs("tiny", "search")) == 2


def test_progress_on_a_pipe_is_plain_lines_and_on_a_terminal_has_bars(world: World) -> None:
    import io

    from rich.console import Console

    from harness.progress import Watcher

    world.write(trials=1)
    shown = {}
    for name, terminal in (("plain", False), ("bars", True)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=140, no_color=True)
        with Watcher(console, "balanced_accuracy", 1) as watcher:
            world.run(watching=watcher, save_as=name)  # type: ignore[arg-type]
        shown[name] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "feature_extraction 0 · mobilenet_v3_small: complete" in shown["plain"]
    assert "best so far" in shown["plain"]
    assert "\x1b" not in shown["plain"]
    assert "Confirmation" in shown["bars"]
    assert "\x1b[?25l" in shown["bars"]


def test_a_killed_worker_costs_an_attempt_and_three_fail_the_slot(world: World) -> None:
    """Real workers: one killed once, one killed every time; every slot is filled, and no process is left."""
    world.write(executor="processes", trials=2, strategies=["fine_tuning"])

    def kill(job: Any, record: Any) -> None:
        once = job.trial_id == "fine_tuning/0" and job.attempt == 1
        if once or job.trial_id == "fine_tuning/1":
            for worker in workers():
                worker.kill()

    watching = Watching(on_epoch=kill)
    world.run(watching=watching)
    searched = {r.trial_id: r for r in watching.records if r.kind == "search"}
    assert (searched["fine_tuning/0"].state, searched["fine_tuning/0"].attempt) == ("complete", 2)
    assert (searched["fine_tuning/1"].state, searched["fine_tuning/1"].attempt) == ("failed", 3)
    assert "SIGKILL" in (searched["fine_tuning/1"].reason or "")
    assert [e.data["attempt"] for e in world.events("tiny", "trial_interrupted")] == [1, 1, 2]
    states = {run.data.tags["harness.key"]: run.info.status for run in runs("tiny", "search")}
    assert states == {
        "fine_tuning/0#1": "FAILED", "fine_tuning/0#2": "FINISHED",
        "fine_tuning/1#1": "FAILED", "fine_tuning/1#2": "FAILED", "fine_tuning/1#3": "FAILED",
    }  # fmt: skip
    assert workers() == []


def workers() -> list[psutil.Process]:
    """Worker processes of this one that live."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if "spawn_main" in " ".join(p.cmdline())]
