"""A study of many heads in short; `make torture` runs two thousand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.benchmarks.fault_injection.endurance import Endurance, Sample, endure, summarise


def looks(memory_mb: list[float], seconds: list[float]) -> list[Sample]:
    return [Sample(25 * n, s, 100.0, mb) for n, (mb, s) in enumerate(zip(memory_mb, seconds, strict=True), 1)]


def test_a_long_run_stays_level_and_answers_ctrl_c(tmp_path: Path) -> None:
    run = endure(tmp_path, trials=40, settled=20, every=5)
    assert run.trials >= 40
    assert run.growth_mb < 50
    assert run.exit_code == 130


def test_growth_is_counted_from_what_is_settled_and_slow_ends_are_told() -> None:
    level = summarise(looks([400, 60, 61, 60, 61, 60], [1, 2, 3, 4, 5, 6]), 150, 50, 2.0, 130)
    assert level.growth_mb == 1
    assert level.faults() == []
    grown = summarise(looks([60, 60, 70, 80, 100, 120], [1, 2, 3, 4, 5, 6]), 150, 50, 2.0, 130)
    assert any("memory grew by 60 MB" in fault for fault in grown.faults())
    slower = summarise(looks([60] * 9, [1, 2, 3, 4, 5, 6, 8, 11, 15]), 225, 50, 2.0, 130)
    assert any("at first and" in fault for fault in slower.faults())
    assert any("Ctrl-C" in fault for fault in replace(level, stop_seconds=11.0).faults())
    assert any("Ctrl-C" in fault for fault in replace(level, exit_code=1).faults())
    assert isinstance(level, Endurance)
