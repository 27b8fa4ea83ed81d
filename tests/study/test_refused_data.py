"""What was assumed to read a table is told when the study refuses it later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config.load import Overrides, load_study
from harness.errors import DataError
from harness.study.prepare import prepare


def test_a_split_that_is_refused_says_how_the_table_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    for number in range(2):
        Image.fromarray(np.full((16, 16, 3), 100 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "t.csv").write_text("ID;Class;\n0;a;\n1;b;\n")
    (tmp_path / "s.yaml").write_text("description: x\nweights: none\n")
    loaded = load_study("s", Overrides(data=str(tmp_path / "t.csv")), studies=tmp_path)
    with pytest.raises(DataError, match="at least 3 different images") as error:
        prepare(loaded, ["cpu"], lambda *words: None)
    for word in ("; (semicolon)", "column ID", "column Class", "0 as 0.png"):
        assert word in str(error.value)
