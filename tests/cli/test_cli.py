"""The command as a user runs it: exit codes, one clear error, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


Harness = Callable[..., tuple[int, str, str]]


def in_a_process_of_its_own(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it; it imports torch, so one test for each thing that only this shows is enough."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-s", *words], cwd=ROOT, capture_output=True, text=True, timeout=240)


def folder_of(root: Path, counts: dict[str, int]) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20), (number * 40, index * 5 % 255, 90)).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("study", "microscop"), 2, "Did you mean microscopy"),
        (("study", "../x"), 2, "a study's name may have letters"),
        (("study", "microscopy", "--trials", "none"), 2, "TRIALS must be a whole number"),
        (("study", "microscopy", "--weights", "no/such/file"), 2, "no/such/file"),
        (("study", "microscopy", "--device", "cuda:99"), 4, "cuda:99"),
        (("study", "microscopy", "--as", "a b"), 2, "AS may have letters"),
        (("study", "blood-cells"), 3, "Chula RBC-12"),
        (("inspect", "microscopy", "--set", "hed=mlp"), 2, "hed: unknown; did you mean head?"),
        (("inspect", "microscopy", "--set", "ema"), 2, "--set must be PARAMETER=VALUE, but got 'ema'"),
        (("inspect", "microscopy", "--backbone", "resnet81"), 2, "resnet18"),
        (("inspect", "microscopy", "--backbone", "maxvit_t"), 2, "image_size"),
        (
            ("inspect", "microscopy", "--set", "unfreeze_schedule=head_first", "--set", "head_fraction=1"),
            2,
            "head_first",
        ),
        (("report", "nothing"), 2, "there is no study 'nothing' here"),
        (("rm", "nothing"), 2, "there is no study 'nothing' here"),
    ],
)
def test_wrong_use_is_one_clear_error_with_its_code(
    tmp_path: Path, harness: Harness, words: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = harness(*words)
    assert ended == code, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.glob("home/*/study.json"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("study", "microscop"), 2, "Did you mean microscopy"),
        # This one starts the workers' server before it fails, and imports everything that a study needs.
        pytest.param(("study", "microscopy", "--device", "cuda:99"), 4, "cuda:99", marks=pytest.mark.slow),
    ],
)
def test_a_shell_gets_the_code_and_one_error_on_stderr(words: tuple[str, ...], code: int, message: str) -> None:
    done = in_a_process_of_its_own(*words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("harness: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_folder_one_class_and_a_corrupt_image_exit_3(tmp_path: Path, harness: Harness) -> None:
    code, _, err = harness("study", "microscopy", "--data", str(tmp_path / "nowhere"))
    assert code == 3
    assert "nowhere" in err

    code, _, err = harness("study", "microscopy", "--data", str(folder_of(tmp_path / "one", {"only": 9})))
    assert code == 3
    assert "only" in err

    corrupt = folder_of(tmp_path / "bad", {"a": 30, "b": 30})
    (corrupt / "a" / "torn.png").write_bytes(b"<html>no image</html>")
    (corrupt / "b" / "empty.png").write_bytes(b"")
    code, _, err = harness("study", "microscopy", "--data", str(corrupt))
    assert code == 3
    assert "torn.png" in err
    assert "empty.png" in err
    assert "Traceback" not in err


def test_help_lists_the_commands_without_loading_torch() -> None:
    done = in_a_process_of_its_own("--help")
    assert done.returncode == 0
    for command in ("study", "report", "ui", "list", "rm", "log", "doctor", "sync", "keys"):
        assert command in done.stdout
    code = "import sys, harness.cli; print(sorted({'torch', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


def test_the_table_of_keys_in_the_docs_is_what_the_models_say(harness: Harness) -> None:
    code, out, _ = harness("keys")
    assert code == 0
    assert out.strip()
    assert out in (ROOT / "studies" / "README.md").read_text(encoding="utf-8")


def test_an_empty_home_lists_nothing(harness: Harness) -> None:
    code, out, _ = harness("list")
    assert code == 0
    assert "no studies yet" in out


def test_make_alone_prints_the_targets_and_variables() -> None:
    shown = make().stdout
    for word in [
        "study",
        "report",
        "ui",
        "test",
        "check",
        "bench",
        "clean",
        "NAME",
        "AS",
        "DATA",
        "WEIGHTS",
        "TRIALS",
        "EPOCHS",
        "WORKERS",
        "DEVICE",
    ]:
        assert word in shown


def test_a_hostile_name_runs_nothing() -> None:
    """What a name may hold is tried in tests/test_security.py; this is what the user reads."""
    done = make("report", "NAME=$(touch pwned)")
    assert done.returncode == 2
    assert "there is no study '$(touch pwned)'" in done.stderr
    assert not (ROOT / "pwned").exists()


def test_every_committed_study_loads() -> None:
    from harness.config.load import load_study

    files = sorted((ROOT / "studies").glob("*.yaml"))
    assert {"microscopy", "blood-cells"} <= {f.stem for f in files}
    for path in files:
        loaded = load_study(path.stem, studies=ROOT / "studies")
        assert loaded.study.description
        assert path.read_text(encoding="utf-8").startswith("# ")


def test_inspect_shows_what_would_train_before_anything_runs(tmp_path: Path, harness: Harness) -> None:
    code, out, err = harness(
        "inspect",
        "microscopy",
        "--backbone",
        "mobilenet_v3_small",
        "--depth",
        "2",
        "--set",
        "batchnorm=updated_stats",
        "--set",
        "unfreeze_schedule=progressive",
        "--set",
        "layer_decay=0.5",
        "--classes",
        "6",
        "--epochs",
        "5",
    )
    assert code == 0, err
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["stage2"][2:4] == ["0", "never"]
    assert lines["stage3"][3:5] == ["5", "1.5e-05"]
    assert lines["stage4"][3:5] == ["3-5", "3e-05"]
    assert lines["head"][1:4] == ["6,150", "6,150", "1-5"]
    assert "updated" in out
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").iterdir())


def test_inspect_says_that_the_epochs_follow_from_the_images(harness: Harness) -> None:
    code, out, err = harness("inspect", "microscopy", "--depth", "2", "--set", "unfreeze_schedule=head_first")
    assert code == 0, err
    assert "10 epochs" in out
    assert "--epochs sets the one that is shown here" in " ".join(out.split())
    code, out, _ = harness("inspect", "microscopy", "--epochs", "20")
    assert "20 epochs" in out
    assert "--epochs sets" not in out


def test_backbones_are_listed_for_people_and_for_machines(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [line.split() for line in harness("backbones")[1].splitlines()]
    assert ["resnet18", "224", "11.2", "3.6", "20", "75", "94", "99", "100", "22", "45", "68", "93"] in rows
    assert sum(len(row) == 13 for row in rows) == 80  # all of them, none cut off
    told = json.loads(harness("backbones", "--json")[1])
    assert len(told) == 80
    resnet = next(row for row in told if row["name"] == "resnet18")
    assert sum(resnet["parameters"]) == 11_176_512
    assert resnet["batchnorm_layers"] == 20
    assert resnet["parameter_share"][1] == pytest.approx(8393728 / 11176512)
    assert resnet["backward_share"][5] == 1.0


def test_nothing_is_called_a_leak_when_a_command_ends() -> None:
    pytest.importorskip("triton")  # comes with torch for CUDA; the export of a model loads it
    code = "import sys, triton; sys.argv = ['harness', '--help']; from harness.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
