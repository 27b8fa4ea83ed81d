"""What can happen to a finished study, and the words by which doctor tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import damaging as d
from small_study import World

from harness.results.paths import home


@dataclass(frozen=True)
class Damage:
    name: str
    do: Callable[[World], Any]
    said: str  # in one of the findings
    needs_images: bool = False  # for what --fix leaves to `make study`


_RUN = "(SELECT run_uuid FROM tags WHERE key = 'harness.key' AND value = 'fine_tuning/1#1')"
_PARENT = "(SELECT run_uuid FROM tags WHERE key = 'harness.study_id')"

DAMAGES = [
    Damage("the last line of the log is torn", lambda w: d.append(w.folder().events, b'{"seq":999,"at"'), "is torn"),
    Damage("a byte of the log's last line changed", lambda w: d.flip(w.folder().events, 0.9999), "its end from line"),
    Damage("the log lost its last newline", lambda w: d.cut(w.folder().events, 1), "is torn"),
    Damage("a session was killed", d.killed, "the last session has no end"),
    Damage("study.json is gone", lambda w: w.folder().study_json.unlink(), "gone or cannot be read"),
    Damage("study.json is cut off", lambda w: d.halve(w.folder().study_json), "gone or cannot be read"),
    Damage(
        "study.json has another seed",
        lambda w: d.edit_json(w.folder().study_json, lambda d: d["study"].update(seed=9)),
        "does not fit the log: seed: was 0, is 9",
    ),
    Damage(
        "study.json has another digest",
        lambda w: d.edit_json(w.folder().study_json, lambda d: d["fingerprint"].update({"data digest": "0"})),
        "does not fit the log: data digest",
    ),
    Damage("the manifest is gone", lambda w: w.folder().manifest.unlink(), "manifest.csv: it is gone"),
    Damage("the manifest is cut off", lambda w: d.halve(w.folder().manifest), "manifest.csv: "),
    Damage(
        "the manifest has other bytes for an image",
        lambda w: d.edit(w.folder().manifest, lambda t: t.__setitem__("sha256", t["sha256"].iloc[::-1].to_numpy())),
        "do not give the data's digest",
    ),
    Damage("the test labels are gone", lambda w: w.folder().test_labels.unlink(), "test_labels.csv: it is gone"),
    Damage(
        "two test labels changed places",
        lambda w: d.edit(w.folder().test_labels, d.swap_labels),
        "do not give the data's digest",
    ),
    Damage("the data card is cut off", lambda w: d.halve(w.folder().data_card), "data_card.json: it cannot be read"),
    Damage("the thumbnails are damaged", lambda w: d.halve(w.folder().thumbnails), "thumbnails.npz: it cannot be read"),
    Damage("a confirmation's model is gone", lambda w: d.confirmed(w).unlink(), "it is gone"),
    Damage(
        "a byte of a confirmation's model changed", lambda w: d.flip(d.confirmed(w), 0.9), "its checksum does not fit"
    ),
    Damage("a confirmation's model is cut off", lambda w: d.halve(d.confirmed(w)), "it cannot be read"),
    Damage("a confirmation's model is of other classes", lambda w: d.other_classes(d.confirmed(w)), "of other classes"),
    Damage("the best model of a search is gone", lambda w: d.best(w).unlink(), "it is gone"),
    Damage("the model of an overtaken trial stayed", lambda w: d.write(d.overtaken(w)), "is no longer needed"),
    Damage(
        "a model that no trial names",
        lambda w: d.write(w.folder().checkpoints / "fine_tuning-77.safetensors"),
        "no finished trial of the log names it",
    ),
    Damage(
        "a note of an ended trial stayed",
        lambda w: d.write(w.folder().checkpoints / "fine_tuning-1.resume"),
        "is no longer needed",
    ),
    Damage("half a file", lambda w: d.write(w.folder().checkpoints / ".x.safetensors.partial"), "half of a file"),
    Damage("half a database", lambda w: d.write(home() / f".mlflow.db.{d.DEAD}.partial"), "half of a file"),
    Damage(
        "half an array",
        lambda w: d.write(home() / "cache" / "staged" / "0f" / "uint8.npy"),
        "resized images of a start",
    ),
    Damage("predictions are gone", lambda w: d.of_event(w, "test").unlink(), "predictions/"),
    Damage("predictions are cut off", lambda w: d.halve(d.of_event(w, "test")), "predictions/"),
    Damage("predictions on shifted images are gone", lambda w: d.of_event(w, "shift").unlink(), "predictions/"),
    Damage("predictions on less data are gone", lambda w: d.of_event(w, "data_size").unlink(), "predictions/"),
    Damage(
        "predictions that no event names",
        lambda w: d.write(w.folder().predictions / "more.npz"),
        "a leftover: no event",
    ),
    Damage(
        "the surest mistakes are damaged", lambda w: d.halve(w.folder().mistakes), "mistakes.npz: it cannot be read"
    ),
    Damage("the importances are damaged", lambda w: d.write(w.folder().importance, "{"), "importance.json: it cannot"),
    Damage("optuna.log is gone", lambda w: w.folder().optuna_log.unlink(), "optuna.log: it is gone"),
    Damage("optuna.log is cut off", lambda w: d.halve(w.folder().optuna_log), "are missing"),
    Damage("optuna.log is empty", lambda w: d.write(w.folder().optuna_log, ""), "are missing"),
    Damage(
        "optuna.log is no journal", lambda w: d.write(w.folder().optuna_log, "{}\n"), "optuna.log: it cannot be read"
    ),
    Damage("optuna.log runs a trial", lambda w: d.in_optuna(lambda study: study.ask()), "holds a trial without a name"),
    Damage(
        "optuna.log has a trial twice",
        lambda w: d.in_optuna(lambda study: study.add_trial(study.trials[0])),
        "is there 2 times",
    ),
    Damage("optuna.log has a trial that the log lost", lambda w: d.unknown_to_the_log(), "which the log does not"),
    Damage("mlflow.db is gone", lambda w: d.remove_database("mlflow.db"), "mlflow.db: it is gone", needs_images=True),
    Damage("mlflow.db is cut off", lambda w: d.halve(home() / "mlflow.db"), "it is damaged", needs_images=True),
    Damage(
        "mlflow.db has other columns",
        lambda w: d.sql("mlflow.db", "ALTER TABLE runs RENAME COLUMN status TO condition"),
        "cannot read it",
        needs_images=True,
    ),
    Damage(
        "mlflow.db runs a trial",
        lambda w: d.sql("mlflow.db", f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = {_RUN}"),
        "is shown as running",
    ),
    Damage(
        "mlflow.db runs the study",
        lambda w: d.sql("mlflow.db", f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = {_PARENT}"),
        "tiny is shown as running",
    ),
    Damage(
        "mlflow.db has not been given the end",
        lambda w: d.sql("mlflow.db", "UPDATE tags SET value = '3 x' WHERE key = 'harness.position'"),
        "lacks the newest",
    ),
    Damage(
        "a run was deleted by hand",
        lambda w: d.sql("mlflow.db", f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {_RUN}"),
        "fine_tuning/1#1 is missing",
    ),
    Damage("a run is there twice", lambda w: d.copy_run("fine_tuning/1#1"), "fine_tuning/1#1 is there 2 times"),
    Damage(
        "a run that the log lost",
        lambda w: d.sql(
            "mlflow.db", f"UPDATE tags SET value = 'fine_tuning/41#1' WHERE run_uuid = {_RUN} AND key = 'harness.key'"
        ),
        "which the log does not",
    ),
    Damage(
        "the experiment was deleted",
        lambda w: d.sql("mlflow.db", "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'tiny'"),
        "experiment was deleted",
    ),
    Damage("a dead process is the owner", lambda w: d.write(w.folder().owner, str(d.DEAD)), "no longer runs the study"),
    Damage("a dead process pinned activations", lambda w: d.pin(d.DEAD), "for a process that is gone"),
    Damage("shared activations changed", lambda w: d.changed_row(), "fail their checksum"),
    Damage(
        "a note of shared activations is damaged",
        lambda w: d.write(d.activations().parent / "meta.json", "{"),
        "its meta.json cannot be read",
    ),
    Damage("the images in the cache changed", lambda w: d.flip(d.image_array()), "its checksum does not fit"),
    Damage(
        "the notes on precision are damaged",
        lambda w: d.write(home() / "cache" / "precision.json", "{"),
        "precision.json",
    ),
]
