from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.config.load import Overrides, load_study
from harness.config.ranges import Choice, FloatRange, IntRange
from harness.config.space import space, tried
from harness.config.study import StudyConfig
from harness.config.trial import TrialConfig, canonical
from harness.errors import ConfigError


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


def load(studies: Path, text: str, **overrides: object) -> StudyConfig:
    (studies / "s.yaml").write_text(text, encoding="utf-8")
    return load_study("s", Overrides(**overrides), studies=studies).study  # type: ignore[arg-type]


def faults(studies: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(studies, text)
    return caught.value.faults


def test_numbers_in_scientific_notation_are_numbers(studies: Path) -> None:
    study = load(studies, "search:\n  head_lr: {low: 1e-4, high: 1E-1, log: true}\n")
    assert study.search["head_lr"] == FloatRange(low=1e-4, high=1e-1, log=True)


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("09", 9), ("+5", 5), ("1_000", 1000)])
def test_a_number_is_decimal_whatever_it_begins_with(studies: Path, text: str, number: int) -> None:
    """YAML 1.1 reads 010 as eight, and 09 as a text."""
    assert load(studies, f"trials: {text}\n").trials == number


@pytest.mark.parametrize("text", ["0x1F", "0b11", "1:30"])
def test_a_number_in_another_notation_is_refused(studies: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"trials: .*{text}"):
        load(studies, f"trials: {text}\n")


def test_all_faults_of_a_file_are_shown_together_each_with_its_key(studies: Path) -> None:
    found = faults(
        studies,
        "trails: 3\nepochs: 0\ndata: {image_sise: 64}\n"
        "search: {head_lr: -1, batchnorm: [frozen, freezed], depth: 3, unfreeze_depth: {low: 4, high: 9}}\n",
    )
    text = "\n".join(found)
    for key in (
        "trails",
        "epochs",
        "data.image_sise",
        "search.head_lr",
        "search.batchnorm",
        "search.depth",
        "unfreeze_depth",
    ):
        assert key in text, (key, text)
    assert "did you mean trials?" in text
    assert "freezed" in text
    assert "9" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "is given twice"),
        ("[1, 2]\n", "must contain keys"),
        ("a: [\n", "is not valid YAML"),
        ("time: soon\n", "duration"),
        ("strategies: [fine_tuning, fine_tuning]\n", "twice"),
        ("batch_size: 32\nsearch: {batch_size: 64}\n", "is given twice"),
        ("search: {backbone: [resnet18, resnet19]}\n", "resnet19"),
        ("search: {head_lr: {low: 0.1, high: 0.01}}\n", "low must not exceed high"),
        ("search: {head_lr: [0.1, 0.1]}\n", "a value twice"),
        ("search: {unfreeze_schedule: progressive}\nepochs: 5\n", "must be at least 6"),
        ("search: {unfreeze_schedule: head_first, head_fraction: 0.9}\nepochs: 3\n", "leaves no epoch"),
        ("try: [{strategy: fine_tuning, head_lr: 0.5}]\nsearch: {head_lr: [0.1, 0.2]}\n", "outside search.head_lr"),
        ("try: [{strategy: from_scratch}]\n", "try[0].strategy"),
        ("search: {batchnorm: no}\n", "batchnorm"),
    ],
)
def test_what_is_wrong_is_said(studies: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(studies, text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["../x", "a;touch p", "$(touch p)", "", ".hidden", "x" * 65])
def test_a_name_that_is_no_name_is_refused(studies: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load_study(name, studies=studies)


def test_an_unknown_study_is_refused_with_the_ones_there_are(studies: Path) -> None:
    (studies / "microscopy.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="Did you mean microscopy"):
        load_study("microscope", studies=studies)


def test_a_flag_beats_the_file(studies: Path) -> None:
    study = load(studies, "trials: 4\nepochs: 3\nweights: bundled\n", trials=7, weights="none")
    assert (study.trials, study.epochs, study.weights.labels) == (7, 3, ("none",))


def test_own_data_is_another_study_unless_the_file_names_none(studies: Path, tmp_path: Path) -> None:
    (studies / "s.yaml").write_text("seed: 0\n")
    (studies / "open.yaml").write_text("data: {source: null}\n")
    own = Overrides(data=str(tmp_path))
    assert load_study("s", own, studies=studies).data_replaced
    assert not load_study("open", own, studies=studies).data_replaced
    assert not load_study("s", studies=studies).data_replaced


def test_durations_are_seconds(studies: Path) -> None:
    assert load(studies, "time: 1h30m\n").time == 5400
    assert load(studies, "time: 90\n").time == 90


def test_defaults_are_clamped_to_the_space(studies: Path) -> None:
    study = load(
        studies,
        "search: {head_lr: {low: 0.01, high: 0.1, log: true}, unfreeze_depth: {low: 1, high: 3}, backbone: resnet34}\n",
    )
    default = space(study, "fine_tuning").default()
    assert (default.head_lr, default.unfreeze_depth, default.backbone) == (0.01, 3, "resnet34")


def test_feature_extraction_asks_nothing_that_has_no_effect(studies: Path) -> None:
    study = load(
        studies,
        "search: {unfreeze_depth: {low: 1, high: 5}, backbone_lr: {low: 1e-5, high: 1e-3},"
        " batchnorm: [frozen, fixed_stats, updated_stats, recalibrated]}\n",
    )
    here = space(study, "feature_extraction")
    assert set(here.searched()) == {"batchnorm"}
    assert here.ranges["batchnorm"] == Choice(("frozen", "recalibrated"))
    assert isinstance(space(study, "fine_tuning").searched()["unfreeze_depth"], IntRange)


def test_own_configurations_come_with_the_defaults_of_their_strategy(studies: Path) -> None:
    study = load(
        studies,
        "search: {unfreeze_depth: {low: 1, high: 5}, backbone_lr: {low: 1e-6, high: 1e-2, log: true}}\n"
        "try: [{strategy: fine_tuning, unfreeze_depth: 1, backbone_lr: 1e-4}]\n",
    )
    [config] = tried(study, "fine_tuning")
    assert (config.unfreeze_depth, config.backbone_lr, config.head_lr) == (1, 1e-4, 3e-4)
    assert tried(study, "feature_extraction") == []


BASE = TrialConfig("fine_tuning", "resnet18", 5, 1e-3, 1e-4, batchnorm="fixed_stats")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"unfreeze_depth": 0, "batchnorm": "updated_stats"}, {"unfreeze_depth": 0, "batchnorm": "frozen"}),
        ({"unfreeze_depth": 0, "backbone_lr": 1.0}, {"unfreeze_depth": 0, "layer_decay": 0.5}),
        ({"batchnorm": "train_mode"}, {"batchnorm": "updated_stats"}),
        ({"backbone": "vgg11", "batchnorm": "recalibrated"}, {"backbone": "vgg11", "batchnorm": "train_mode"}),
        ({"unfreeze_from": "stem"}, {"unfreeze_from": "head"}),
        ({"head_fraction": 0.5}, {"head_fraction": 0.2}),
    ],
)
def test_configurations_that_train_the_same_are_one(a: dict[str, object], b: dict[str, object]) -> None:
    one, two = dataclasses.replace(BASE, **a), dataclasses.replace(BASE, **b)  # type: ignore[arg-type]
    assert one != two
    assert canonical(one) == canonical(two)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"unfreeze_depth": 0, "batchnorm": "recalibrated"}, {"unfreeze_depth": 0, "batchnorm": "frozen"}),
        ({"unfreeze_depth": 3, "batchnorm": "train_mode"}, {"unfreeze_depth": 3, "batchnorm": "updated_stats"}),
        ({"unfreeze_depth": 3, "unfreeze_from": "stem"}, {"unfreeze_depth": 3, "unfreeze_from": "head"}),
        ({"batchnorm": "frozen"}, {"batchnorm": "fixed_stats"}),
        (
            {"unfreeze_schedule": "head_first", "head_fraction": 0.5},
            {"unfreeze_schedule": "head_first", "head_fraction": 0.2},
        ),
        (
            {"unfreeze_schedule": "head_first", "batchnorm": "train_mode"},
            {"unfreeze_schedule": "head_first", "batchnorm": "updated_stats"},
        ),
    ],
)
def test_configurations_that_differ_stay_two(a: dict[str, object], b: dict[str, object]) -> None:
    one, two = dataclasses.replace(BASE, **a), dataclasses.replace(BASE, **b)  # type: ignore[arg-type]
    assert canonical(one) != canonical(two)


def test_the_key_names_a_configuration() -> None:
    assert BASE.key() == dataclasses.replace(BASE).key()
    assert BASE.key() != dataclasses.replace(BASE, head_lr=2e-3).key()
    assert TrialConfig.from_json(BASE.to_json()) == BASE


ODD = {
    "a NUL": ("trials: 3\nname\0: 1\n", r"line 2: it has a NUL character"),
    "a list as a key": ("[a, b]: 1\n", r"line 1: a key must be a word"),
    "a mapping as a key": ("data: {? {a: 1} : 2}\n", r"a key must be a word"),
    "a number of 5,000 digits": (f"seed: {'9' * 5000}\n", r"a value cannot be read"),
    "another number of 5,000 digits": (f"search: {{head_lr: [1, {'8' * 5000}]}}\n", r"a value cannot be read"),
    "a tag that does not fit": ("trials: !!int three\n", r"a value cannot be read"),
    "a time that is none": ("trials: !!timestamp soon\n", r"a value cannot be read"),
    "a truth that is none": ("trials: !!bool maybe\n", r"a value cannot be read"),
    "deep nesting": (f"search: {'[' * 5000}{']' * 5000}\n", r"deeper than 20 levels"),
    "somewhat deep nesting": (f"search: {'[' * 30}{']' * 30}\n", r"deeper than 20 levels"),
    "deep nesting by indentation": ("".join(f"{' ' * depth}a:\n" for depth in range(150)), r"deeper than 20 levels"),
    "an endless value": ("search: &a [*a]\n", r"must not contain itself"),
    "tabs": ("search:\n\thead_lr: 1e-3\n", r"spaces instead of tabs"),
    "a tab before a value": ("search:\n  head_lr: \t{low: 1\n\t- 2}\n", r"is not valid YAML"),
    "a backslash in double quotes": ('data: {split: {group: "slide(\\d+)"}}\n', r"use single quotes"),
    "several documents": ("trials: 3\n---\ntrials: 4\n", r"keep one study in the file, without a line ---"),
    "an invisible character": ("trials: 3\nseed: \x07 1\n", r"remove this character"),
    "a list": ("- 1\n- 2\n", r"must contain keys and values"),
    "nothing": ("# soon\n", r"must contain keys and values"),
    "no number": ("batch_size: .nan\n", r"batch_size"),
    "a rate that is no number": ("search: {head_lr: nan}\n", r"search\.head_lr"),
    "a rate without a bound": ("search: {head_lr: {low: 1e-4, high: inf}}\n", r"search\.head_lr"),
    "a rate of infinity": ("search: {head_lr: 1e999}\n", r"search\.head_lr"),
    "a large file": (f"# {'x' * 200_000}\ntrials: 3\n", r"at most 100000 bytes"),
    "a long value": (f"objective: {'x' * 50_000}\n", r"objective"),
    "many unknown keys": ("".join(f"key{number}: 1\n" for number in range(3000)), r"3000 faults"),
}


@pytest.mark.parametrize(("text", "told"), ODD.values(), ids=ODD)
def test_an_odd_file_ends_with_one_short_message(studies: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        load(studies, text)
    said = str(caught.value)
    assert len(said) < 5000 and (said.startswith("s.yaml") or said.startswith("line"))
    assert "\0" not in said


@pytest.mark.parametrize("merged", [False, True], ids=["in lists", "merged"])
def test_aliases_that_grow_are_refused_before_they_have_grown(studies: Path, merged: bool) -> None:
    lines = ["a0: &a0 {k: 1, l: 2}" if merged else "a0: &a0 [1, 2]"]
    for number in range(1, 60):
        again = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} {{<<: [{again}]}}" if merged else f"a{number}: &a{number} [{again}]")
        if number == 8:
            break
    with pytest.raises(ConfigError, match=r"at most 10000 values; its aliases"):
        load(studies, "\n".join(lines) + "\n")


def test_a_file_in_utf_16_or_latin_1_is_refused_and_one_with_a_byte_order_mark_is_read(studies: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "latin-1"):
        (studies / "s.yaml").write_bytes("description: für alle\ntrials: 3\n".encode(encoding))
        with pytest.raises(ConfigError, match="UTF-8"):
            load_study("s", studies=studies)
    (studies / "s.yaml").write_bytes(b"\xef\xbb\xbftrials: 3\n")
    assert load_study("s", studies=studies).study.trials == 3


def test_an_alias_may_repeat_a_value(studies: Path) -> None:
    text = "search:\n  head_lr: &rate {low: 1e-4, high: 1e-2, log: true}\n  backbone_lr: *rate\n"
    study = load(studies, text)
    assert study.search["head_lr"] == study.search["backbone_lr"]
