"""Which study a study is: it keeps its threads wherever it goes on, and a refusal names each key and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import canned_executor
import pytest
from small_study import Watching, World, records

from harness.config.study import StudyConfig
from harness.errors import ConfigError
from harness.results.event_types import SessionStarted, StudyCreated
from harness.study import prepare as preparing
from harness.study.identity import fingerprint, refusal


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Threads and number of the workers of each session."""
    seen: list[tuple[int, int]] = []
    made = canned_executor.make

    def make(context: Any, devices: Any) -> Any:
        seen.append((context.threads, len(devices)))
        return made(context, devices)

    monkeypatch.setattr(canned_executor, "make", make)
    return seen


@pytest.mark.parametrize(("cores", "workers", "here"), [(1, 1, 1), (8, 1, 8), (4, 3, 1)])
def test_a_study_goes_on_with_its_threads_on_other_cores_and_with_other_workers(
    canned_world: World,
    told: list[tuple[int, int]],
    harness: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    workers: int,
    here: int,
) -> None:
    monkeypatch.setattr(preparing, "_cores", lambda: 4)
    canned_world.write(threads=None, trials=1)
    first = Watching()
    canned_world.run(watching=first)
    assert not any(text.startswith("Threads:") for text in first.texts)
    monkeypatch.setattr(preparing, "_cores", lambda: cores)
    canned_world.write(threads=None, trials=2, workers=workers)
    watching = Watching()
    canned_world.run(watching=watching)
    assert len({record.trial_id for record in records(canned_world)}) > len(first.records) and watching.records
    assert told == [(4, 1), (4, workers)]
    [said] = [text for text in watching.texts if text.startswith("Threads:")]
    assert "keeps the 4 with which" in said and f"would take {here} here, with {workers} worker" in said
    environments = [started.environment for started in canned_world.of(SessionStarted)]
    assert [(e["threads"], e["workers"], e.get("threads_here")) for e in environments] == [
        (4, 1, None),
        (4, workers, here),
    ]
    assert f"4 threads (kept; here they would be {here})" in harness("log", "tiny")[1]
    prepared = preparing.prepare(canned_world.load(), ["cpu"] * workers, lambda *words: None)  # as the doctor does
    [created] = canned_world.of(StudyCreated)
    assert prepared.fingerprint == created.fingerprint


def test_threads_that_the_file_names_are_compared_and_the_refusal_says_how_to_keep_the_old_ones(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_cores", lambda: 4)
    canned_world.write(threads=None, trials=1)
    canned_world.run()
    canned_world.write(threads=2, trials=1)
    with pytest.raises(ConfigError, match="threads: was 4, is 2; without the key threads the study keeps its own"):
        canned_world.run()
    canned_world.write(threads=4, trials=1)
    monkeypatch.setattr(preparing, "_cores", lambda: 1)
    watching = Watching()
    assert canned_world.run(watching=watching).already_finished
    assert not any(text.startswith("Threads:") for text in watching.texts)
    canned_world.write(threads=None, trials=1)
    canned_world.run(save_as="new")  # a new study takes what the machine has
    [created] = canned_world.of(StudyCreated, "new")
    assert created.fingerprint["threads"] == 1


def rich_fingerprint() -> dict[str, Any]:
    """Of a study that sets as many keys as possible."""
    study = StudyConfig.model_validate(
        {
            "weights": "none",
            "search": {"backbone": ["resnet18", "mobilenet_v3_small"], "unfreeze_depth": {"low": 1, "high": 3}},
            "try": [{"strategy": "fine_tuning", "head_lr": 0.01}],
        }
    )
    context: Any = SimpleNamespace(precision="exact", threads=2, own_code=())
    return fingerprint(study, SimpleNamespace(digest="d" * 16), context, "cpu")  # type: ignore[arg-type]


def leaves(values: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *path, key)
        else:
            yield (*path, key)


@pytest.mark.parametrize("path", list(leaves(rich_fingerprint())), ids=".".join)
def test_every_refusal_names_a_key_of_the_study_file_both_values_and_the_way_out(path: tuple[str, ...]) -> None:
    before, now = rich_fingerprint(), rich_fingerprint()
    inner = now
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "another"
    error = refusal("cells", before, now)
    assert error is not None and error.exit_code == 2
    [line] = error.faults
    assert line.startswith(f"{'.'.join(path)}: was ") and ', is "another"' in line
    named = re.findall(r"key (\w+)", line) or [path[0]]
    assert set(named) <= {field.alias or name for name, field in StudyConfig.model_fields.items()}
    assert "the study cells was started with other settings" in str(error)
    assert "AS=newname" in str(error) and "--as newname" in str(error)


def test_without_a_difference_nothing_is_refused_and_a_key_that_is_new_or_gone_is_one() -> None:
    now = rich_fingerprint()
    assert refusal("cells", now, rich_fingerprint()) is None
    del now["pruning"]
    for before, after, told in ((now, rich_fingerprint(), "was null"), (rich_fingerprint(), now, "is null")):
        error = refusal("cells", before, after)
        assert error is not None and told in error.faults[0]
