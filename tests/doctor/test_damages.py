"""Every damage that we know, dealt to a copy of a finished study: doctor names it, repairs it, and no trial is lost."""

from __future__ import annotations

import pytest
from damages import DAMAGES, Damage
from damaging import diagnosed, trials
from small_study import World


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_damage_is_named_repaired_and_costs_no_trial(copied: World, damage: Damage) -> None:
    before = trials(copied)
    damage.do(copied)
    found = diagnosed()
    assert any(damage.said in str(finding) for finding in found.left), [str(f) for f in found.left]
    assert not found.repaired
    repaired = diagnosed(fix=True)
    assert repaired.repaired and not repaired.failed, list(repaired.lines())
    if damage.needs_images:  # no log can hold a model
        assert ["the model" in str(finding) for finding in repaired.left] == [True], list(repaired.lines())
        if damage.name != "mlflow.db is gone":
            return  # the model is logged again in the same way, which takes seconds
        assert copied.run().already_finished
    else:
        assert repaired.well, list(repaired.lines())
    assert diagnosed().well, list(diagnosed().lines())
    assert trials(copied) == before
