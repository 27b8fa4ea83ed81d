"""Load a study file: YAML and command-line flags become a StudyConfig, or one error that lists all faults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config.backbone_specs import backbone_spec, check_image_size
from harness.config.space import faults_of_try, space
from harness.config.study import AUTO, StudyConfig
from harness.config.study_names import check_letters, check_study_name
from harness.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, reads `1e-4` as a number, and only true and false as booleans."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [
        (tag, rule)
        for tag, rule in rules
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class LoadedStudy:
    """A study as described by its file and the flags.

    `name` is the file's name, or `AS`. If `data_replaced` is true, the caller has to add the data's digest to it.
    """

    name: str
    study: StudyConfig
    data_replaced: bool
    path: Path


@dataclass(frozen=True)
class Overrides:
    """Values from flags or the environment that replace those of the file; None keeps the file's value."""

    data: str | None = None
    weights: str | None = None
    trials: int | None = None
    epochs: int | str | None = None  # or "auto"
    seeds: int | None = None
    workers: int | None = None
    device: str | None = None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise ConfigError, with the line, if it cannot be read."""
    try:
        loader = _StrictLoader(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} must be UTF-8 text") from None
    try:
        document = loader.get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name} must contain keys and values, but it contains a {type(document).__name__}")
    return document


def find_study(name: str, studies: Path = Path("studies")) -> Path:
    """Return the file of a study; raise ConfigError, with the names that exist, if there is none."""
    check_letters(name)
    path = studies / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in studies.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no study {name!r} in {studies}/; it has: {', '.join(known) or 'none'}.{hint}")
    return path


def load_study(
    name: str, overrides: Overrides = Overrides(), *, save_as: str | None = None, studies: Path = Path("studies")
) -> LoadedStudy:
    """Read the file of a study, apply the overrides and check the result.

    Raises:
        ConfigError: the name, the file or an override is wrong; lists all faults of the file, each with its key.
    """
    path = find_study(name, studies)
    if save_as is None:
        check_study_name(name)
    else:
        check_study_name(save_as, "AS")
    document = read_yaml(path)
    replaced = _override(document, overrides)
    study = parse(document, path.name)
    return LoadedStudy(save_as or name, study, replaced, path)


def parse(document: dict[str, Any], name: str) -> StudyConfig:
    """Return the checked study of a document; raise ConfigError with all faults."""
    faults: list[str] = []
    study: StudyConfig | None = None
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        for fault in error.errors():
            faults += _readable(fault)
    if study is not None:
        faults += _against_backbones(study)
        faults += faults_of_try(study)
    if study is None or faults:
        raise ConfigError(f"{name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:", faults)
    return study


def _override(document: dict[str, Any], overrides: Overrides) -> bool:
    """Write the overrides into the document; return whether they replace data that the file names."""
    for key in ("weights", "trials", "epochs", "workers", "device"):
        value = getattr(overrides, key)
        if value is not None:
            document[key] = value
    confirmation = document.setdefault("confirmation", {}) if overrides.seeds is not None else None
    if isinstance(confirmation, dict):
        confirmation["seeds"] = overrides.seeds
    if overrides.data is None:
        return False
    data = document.setdefault("data", {})
    named = not isinstance(data, dict) or data.get("source", "rendered_cells") is not None
    if isinstance(data, dict):
        path = Path(overrides.data).expanduser()
        data["source"] = {"csv" if path.suffix.lower() == ".csv" else "folder": str(path.resolve())}
    return named


def _readable(fault: Any) -> list[str]:
    """Return one of pydantic's faults as lines `key: rule`, without the branches of a union."""
    where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("function-", "tagged-")))
    text = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return [f"{where}: unknown key{_near(fault['loc'])}"]
    if where == "search" and not text.startswith("must map"):  # one line for each parameter, which begins with its name
        return [f"{where}.{line}" for line in text.splitlines()]
    if fault["type"] not in ("value_error", "missing"):
        text = f"{text[0].lower()}{text[1:]}, but got {fault['input']!r}"
    return [f"{where or 'the file'}: {text}"]


def _near(loc: tuple[Any, ...]) -> str:
    """Return a hint for an unknown key: a similar key, or all keys."""
    model: Any = StudyConfig
    for part in loc[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    if not hasattr(model, "model_fields"):
        return ""
    known = [field.alias or key for key, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the keys here are {', '.join(known)}"


def _against_backbones(study: StudyConfig) -> list[str]:
    """Return faults in the backbones' names and image sizes, and unfreezing phases that get no epoch."""
    faults: list[str] = []
    spaces = {strategy: space(study, strategy) for strategy in study.strategies}
    backbones = dict.fromkeys(name for one in spaces.values() for name in one.ranges["backbone"].values())
    for name in backbones:
        try:
            backbone_spec(name)
            if isinstance(study.data.image_size, int):
                check_image_size(name, study.data.image_size)
        except ConfigError as error:
            faults.append(f"search.backbone: {error}")
    if study.epochs != AUTO:
        faults += faults_of_phases(study)
    if study.search.get("backbone") is None and study.weights not in ("none", "bundled", "imagenet"):
        faults.append("search.backbone: must name the backbone that the checkpoint in `weights` belongs to")
    return faults


def faults_of_phases(study: StudyConfig) -> list[str]:
    """Return faults in the schedules of unfreezing: phases that get no epoch."""
    if "fine_tuning" not in study.strategies:
        return []
    search_space = space(study, "fine_tuning")
    schedules = search_space.ranges["unfreeze_schedule"].values()
    faults = []
    deepest = max(search_space.ranges["unfreeze_depth"].ends())
    if "progressive" in schedules and deepest + 1 > study.epochs:
        faults.append(
            f"epochs: must be at least {deepest + 1} for `progressive` with unfreeze_depth up to {deepest}, so that "
            f"each phase has an epoch, but got {study.epochs}; or remove `progressive` from search.unfreeze_schedule"
        )
    if "head_first" in schedules:
        faults += [
            f"search.head_fraction: {fraction:g} of {study.epochs} epochs leaves no epoch for the backbone "
            f"({search_space.strategy}); use a smaller fraction or more epochs"
            for fraction in search_space.ranges["head_fraction"].ends()
            if max(round(fraction * study.epochs), 1) >= study.epochs
        ]
    return faults
