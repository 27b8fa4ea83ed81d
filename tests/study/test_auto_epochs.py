"""A study with `epochs: auto`: the number is said, stored, and the same at the next start."""

from __future__ import annotations

import json

import pytest
from small_study import Watching, World, records

from harness.config.auto_epochs import MOST
from harness.errors import ConfigError


def test_the_number_is_said_and_stored_and_a_resumed_study_keeps_it(canned_world: World) -> None:
    canned_world.write(epochs="auto", trials=1)
    watching = Watching()
    canned_world.run(watching=watching)
    assert any(text.startswith(f"Epochs: {MOST} for every trial") for text in watching.texts)
    assert {record.config.epochs for record in records(canned_world)} == {MOST}
    assert json.loads(canned_world.folder().study_json.read_text())["study"]["epochs"] == MOST
    canned_world.run(trials=2)  # the same study
    assert len(records(canned_world)) > 2
    canned_world.write(epochs=MOST, trials=2)
    assert canned_world.run().already_finished  # the number that was chosen, given by hand
    canned_world.write(epochs=MOST - 1, trials=2)
    with pytest.raises(ConfigError, match=f"epochs: was {MOST}, is {MOST - 1}"):
        canned_world.run()


def test_a_schedule_that_needs_more_epochs_is_refused_once_the_number_is_known(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.config.auto_epochs.MOST", 3)
    search = {"backbone": "mobilenet_v3_small", "unfreeze_schedule": "progressive", "batch_size": 16}
    canned_world.write(epochs="auto", search=search)
    with pytest.raises(ConfigError) as refused:
        canned_world.run()
    assert "progressive" in str(refused.value)
