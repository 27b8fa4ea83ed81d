"""A study's predictions are read once, whoever asks for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.study_data import StudyData
from harness.report.page import write_report
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]


@pytest.mark.parametrize("until", ["scored", "end"])
def test_a_page_reads_each_prediction_file_once(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    folder = make_study(until=until)
    opened, load = Counter[str](), np.load

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        opened[Path(getattr(file, "name", file)).name] += 1
        return load(file, *arguments, **options)

    monkeypatch.setattr(np, "load", counting)
    write_report(folder)
    stored = {path.name for path in folder.predictions.iterdir()}
    assert {name: opened[name] for name in stored} == dict.fromkeys(stored, 1)


def test_a_default_that_won_is_the_winner_itself(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(trials=1, until="scored"))
    assert data.winners
    assert all(data.defaults[strategy] is winner for strategy, winner in data.winners.items())
