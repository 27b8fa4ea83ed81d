"""From a YAML file and the flags to a StudyConfig, or to one error that lists every fault of the file."""

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
from harness.config.space import SearchSpace, faults_of_try, space
from harness.config.study import StudyConfig
from harness.config.trial import NAME_RULE
from harness.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """YAML without its traps: no duplicate keys, `1e-4` is a number, only true and false are booleans."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice; keep one")
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
    """A study as the file and the flags make it.

    `name` is the file's name, or `AS`; where `data_replaced`, the data's digest is still to be added.
    """

    name: str
    study: StudyConfig
    data_replaced: bool
    path: Path


@dataclass(frozen=True)
class Overrides:
    """What flags or the environment say over the file; None leaves the file's word."""

    data: str | None = None
    weights: str | None = None
    trials: int | None = None
    epochs: int | None = None
    workers: int | None = None
    device: str | None = None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ConfigError with the line where it cannot be read."""
    try:
        loader = _StrictLoader(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} must be UTF-8 text") from None
    try:
        document = loader.get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is no valid YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name} must hold keys and values, but holds {type(document).__name__}")
    return document


def find_study(name: str, studies: Path = Path("studies")) -> Path:
    """The file of a study; raises ConfigError with the names that exist."""
    if not NAME_RULE.fullmatch(name):
        raise ConfigError(
            "a study's name has letters, digits, '.', '_' and '-' (64 at most, a letter or digit first), "
            f"but got {name!r}"
        )
    path = studies / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in studies.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no study {name!r} in {studies}/; there are: {', '.join(known) or 'none'}.{hint}")
    return path


def load_study(
    name: str, overrides: Overrides = Overrides(), *, save_as: str | None = None, studies: Path = Path("studies")
) -> LoadedStudy:
    """Read, override and check one study.

    Raises:
        ConfigError: with all faults of the file together, each with its key.
    """
    path = find_study(name, studies)
    if save_as is not None and not NAME_RULE.fullmatch(save_as):
        raise ConfigError(
            f"AS has letters, digits, '.', '_' and '-' (64 at most, a letter or digit first), but got {save_as!r}"
        )
    document = read_yaml(path)
    replaced = _override(document, overrides)
    study = parse(document, path.name)
    return LoadedStudy(save_as or name, study, replaced, path)


def parse(document: dict[str, Any], name: str) -> StudyConfig:
    """The checked study of a document; raises ConfigError with every fault."""
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
    """Write the overrides into the document; True where they replace data that the file names."""
    for key in ("weights", "trials", "epochs", "workers", "device"):
        value = getattr(overrides, key)
        if value is not None:
            document[key] = value
    if overrides.data is None:
        return False
    data = document.setdefault("data", {})
    named = not isinstance(data, dict) or data.get("source", "rendered_cells") is not None
    if isinstance(data, dict):
        path = Path(overrides.data).expanduser()
        data["source"] = {"csv" if path.suffix.lower() == ".csv" else "folder": str(path.resolve())}
    return named


def _readable(fault: Any) -> list[str]:
    """One pydantic fault as lines `key: rule`; a union's inner branches are left out."""
    where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("function-", "tagged-")))
    text = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return [f"{where}: unknown key{_near(fault['loc'])}"]
    if where == "search" and not text.startswith("must map"):  # a line for each parameter, which it begins with
        return [f"{where}.{line}" for line in text.splitlines()]
    if fault["type"] not in ("value_error", "missing"):
        text = f"{text[0].lower()}{text[1:]}, but got {fault['input']!r}"
    return [f"{where or 'the file'}: {text}"]


def _near(loc: tuple[Any, ...]) -> str:
    """A likely meaning of an unknown key, as a hint."""
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
    """Faults that need a backbone's spec: its name, the image size, phases without an epoch."""
    faults: list[str] = []
    spaces = {strategy: space(study, strategy) for strategy in study.strategies}
    backbones = dict.fromkeys(name for here in spaces.values() for name in here.ranges["backbone"].values())
    for name in backbones:
        try:
            backbone_spec(name)
            if isinstance(study.data.image_size, int):
                check_image_size(name, study.data.image_size)
        except ConfigError as error:
            faults.append(f"search.backbone: {error}")
    if "fine_tuning" in spaces:
        faults += _phases(study, spaces["fine_tuning"])
    if study.search.get("backbone") is None and study.weights not in ("none", "bundled", "imagenet"):
        faults.append("search.backbone: name the backbone that the checkpoint belongs to")
    return faults


def _phases(study: StudyConfig, here: SearchSpace) -> list[str]:
    schedules = here.ranges["unfreeze_schedule"].values()
    faults = []
    deepest = max(here.ranges["unfreeze_depth"].ends())
    if "progressive" in schedules and deepest + 1 > study.epochs:
        faults.append(
            f"epochs: {study.epochs} leave a phase of `progressive` without an epoch; unfreeze_depth up to {deepest} "
            f"needs at least {deepest + 1}, or take `progressive` out of search.unfreeze_schedule"
        )
    if "head_first" in schedules:
        faults += [
            f"search.head_fraction: {fraction:g} of {study.epochs} epochs leaves none for the backbone "
            f"({here.strategy}); take a smaller fraction or more epochs"
            for fraction in here.ranges["head_fraction"].ends()
            if max(round(fraction * study.epochs), 1) >= study.epochs
        ]
    return faults
