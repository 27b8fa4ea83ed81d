from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from harness.config.data import DataConfig
from harness.data import decoder_pool
from harness.data.dataset import arrays, open_dataset
from harness.data.scan import Scan, scan
from harness.errors import DataError, ResourceError


def config_of(root: Path, **options: Any) -> DataConfig:
    return DataConfig.model_validate({"source": {"folder": str(root)}, **options})


def scanned(root: Path, cache: Path, **options: Any) -> Scan:
    return scan(config_of(root, **options), cache=cache)


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "EXAMINE", "crashing_decoder:examine")


ENDINGS = {
    "SEGV": r"makes its decoder crash \(signal 11\): convert it to PNG",
    "NULL": r"makes its decoder crash \(signal 11\): convert it to PNG",
    "ABRT": r"makes its decoder crash \(signal 6\): convert it to PNG",
    "EXIT": r"makes its decoder end \(exit code 3\): convert it to PNG",
    "KILL": r"had its decoder killed twice \(signal 9\)",
}


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("word", ENDINGS)
def test_a_file_that_ends_its_decoder_is_named_and_the_rest_goes_on(cells: Path, cache: Path, word: str) -> None:
    (cells / "blast/a_bad.png").write_bytes(word.encode())
    with pytest.raises(DataError, match=rf"1 of 25 images cannot be read(.|\n)*blast/a_bad.png: {ENDINGS[word]}"):
        scanned(cells, cache)
    found = scanned(cells, cache, on_bad="skip")
    assert [path for path, _ in found.skipped] == ["blast/a_bad.png"] and len(found.images) == 24


@pytest.mark.usefixtures("crashing")
def test_files_that_crash_hang_or_are_truncated_are_named_together(
    cells: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "PROCESSOR_SECONDS", 1.0)
    monkeypatch.setattr(decoder_pool, "SECONDS", 5.0)
    words = ["SEGV", "LOOP", "ABRT", "WAIT", "SEGV", "EXIT", "none"]
    for number, word in enumerate(words):
        (cells / f"{('blast', 'resting')[number % 2]}/slide{number}_bad.png").write_bytes(word.encode())
    found = scanned(cells, cache, on_bad="skip")
    assert len(found.skipped) == len(words) and len(found.images) == 24
    reasons = {path.rpartition("/")[2]: reason for path, reason in found.skipped}
    assert "keeps its decoder busy for more than 1 s" in reasons["slide1_bad.png"]
    assert "takes longer than 5 s" in reasons["slide3_bad.png"]
    assert "not an image" in reasons["slide6_bad.png"]


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("word", ["ONCE", "SERV"])
def test_a_process_that_is_killed_from_outside_costs_nothing(cells: Path, cache: Path, word: str) -> None:
    expected = scanned(cells, cache).images
    for path in sorted(cells.rglob("*.png"))[3:20:4]:
        path.rename(path.with_suffix(".whole"))
        path.write_bytes(word.encode())
        if word == "SERV":
            break
    assert scanned(cells, cache, background=(0, 0, 0)).images == expected


@pytest.mark.usefixtures("crashing")
def test_a_server_that_dies_again_and_again_is_one_error(cells: Path, cache: Path) -> None:
    for path in sorted(cells.rglob("*.png"))[:8]:
        shutil.copy(path, path.with_suffix(".whole"))
        path.write_bytes(b"SERV")
    with pytest.raises(ResourceError, match="ended 3 times"):
        scanned(cells, cache)


@pytest.mark.usefixtures("crashing")
def test_an_image_that_does_not_fit_into_memory_is_a_missing_resource_and_no_bad_file(cells: Path, cache: Path) -> None:
    (cells / "blast/huge.png").write_bytes(b"FULL")
    with pytest.raises(ResourceError, match=r"huge\.png does not fit into the memory"):
        scanned(cells, cache, on_bad="skip")


@pytest.mark.usefixtures("crashing")
def test_a_file_that_crashes_between_scan_and_array_is_refused(cells: Path, cache: Path) -> None:
    dataset = open_dataset(config_of(cells), cache=cache)
    (cells / "blast/slide0_00.png").write_bytes(b"SEGV")
    with pytest.raises(DataError, match=r"slide0_00.png was readable during the scan, but now it makes its decoder"):
        arrays(dataset, config_of(cells), 16, cache=cache)


def test_decoding_processes_import_little() -> None:
    code = "import sys, harness.data.decoder_process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "pandas", "scipy", "matplotlib", "mlflow", "optuna"}
    assert not heavy & set(done.stdout.split())


SCAN = """
import sys
from pathlib import Path
import harness.stop_signals
from harness.config.data import DataConfig
from harness.data import decoder_pool, scan
from harness.data.dataset import arrays, open_dataset

if __name__ == "__main__":
    harness.stop_signals.leave_in_order()
    decoder_pool.EXAMINE = "crashing_decoder:examine"
    scan.FLUSH_SECONDS = 0.0
    config = DataConfig.model_validate({"source": {"folder": sys.argv[1]}})
    dataset = open_dataset(config, cache=Path(sys.argv[2]), sizes=(16,), progress=lambda done, count: print(done))
    print(arrays(dataset, config, 16, cache=Path(sys.argv[2])))
"""


def start(cells: Path, cache: Path, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)])
    return subprocess.Popen(
        [sys.executable, "-u", "-c", SCAN, str(cells), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def wait_for(condition: Any) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_whatever_ends_the_command_ends_its_decoders_even_those_that_hang(
    cells: Path, cache: Path, number: signal.Signals
) -> None:
    for path in cells.rglob("*.png"):
        path.write_bytes(b"LOOP")
    log = cache / "log"
    with start(cells, cache, HARNESS_TEST_READ_FILES=str(log)) as command:
        wait_for(log.exists)
        processes = psutil.Process(command.pid).children(recursive=True)
        assert len(processes) >= 2
        os.kill(command.pid, number)
        assert command.wait(60) == (-9 if number == signal.SIGKILL else 128 + number)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def test_a_command_that_is_killed_again_and_again_goes_on_and_reads_each_image_about_once(
    cells: Path, cache: Path, tmp_path: Path
) -> None:
    for path in cells.rglob("*.png"):
        os.utime(path, (time.time() - 100,) * 2)
    config, log = config_of(cells), tmp_path / "log"
    log.touch()
    expected = np.load(arrays(open_dataset(config, cache=tmp_path / "other"), config, 16, cache=tmp_path / "other"))
    kills = 0
    for reads in (4, 9, 15):
        with start(cells, cache, HARNESS_TEST_READ_FILES=str(log)) as command:
            assert command.stdout is not None
            while (line := command.stdout.readline()) and not line.startswith("/"):
                if int(line) >= reads:
                    command.kill()
                    kills += 1
                    break
    with start(cells, cache, HARNESS_TEST_READ_FILES=str(log)) as command:
        out, _ = command.communicate(timeout=60)
    assert command.returncode == 0 and kills == 3
    assert (np.load(out.split()[-1]) == expected).all()
    read = log.read_text().split()
    assert set(read) == {path.name for path in cells.rglob("*.png")}
    in_flight = 2 * len(os.sched_getaffinity(0))  # and what was answered, but not received
    assert len(read) <= 24 + kills * max(in_flight, 8)
