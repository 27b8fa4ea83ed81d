"""Load a study file: YAML and command-line flags become a StudyConfig, or one error that lists all faults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config.backbone_specs import backbone_spec, check_image_size, permit
from harness.config.space import faults_of_try, space
from harness.config.study import AUTO, StudyConfig
from harness.config.study_names import check_letters, check_study_name
from harness.errors import ConfigError

MAX_BYTES = 100_000  # of a study file; the longest in this project has 3,000
MAX_DEPTH = 20
MAX_VALUES = 10_000  # values in the file, each alias counted as all that it stands for
_SHOWN = 200  # characters of a value in a message
_MOST_FAULTS = 50
TABLES = (".csv", ".tsv", ".txt")  # suffixes of data that are a table
_KEYS = "; the keys here are "


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, and reads numbers and booleans as YAML 1.2 does.

    So `1e-4` is a number, 010 is ten instead of eight, 1:30 is a text instead of ninety, and only true and false are
    booleans.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"line {line}: a key must be a word, but got a list or a mapping; put it in quotes")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"line {line}: the key {_short(key)} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [
        (tag, rule)
        for tag, rule in rules
        if tag.removeprefix("tag:yaml.org,2002:") not in ("bool", "float", "int", "timestamp")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"),
    list("-+.0123456789"),
)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$", re.ASCII), list("-+0123456789"))
_StrictLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


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
    data_keys: Mapping[str, Any] = field(default_factory=dict)  # under `data`, such as {"split.group": "…"}
    weights: str | None = None
    trials: int | None = None
    epochs: int | str | None = None  # or "auto"
    seeds: int | None = None
    workers: int | None = None
    device: str | None = None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, with the line; it is too large; or its aliases make it too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path.name} must have at most {MAX_BYTES} bytes, but has {path.stat().st_size}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} must be UTF-8 text; save it in this encoding") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read ({error.strerror})") from None
    try:
        document = _document(text)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{path.name} is not valid YAML: {_short_text(why)}{_hint(why)}") from None
    except RecursionError:
        raise ConfigError(f"{path.name} must not nest lists and mappings deeper than {MAX_DEPTH} levels") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name} must contain keys and values, but it contains a {type(document).__name__}")
    return document


def _document(text: str) -> Any:
    """Return what a YAML text describes. Its size is checked first, because each alias may repeat another one."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(f"line {line}: it has a NUL character; remove it, and save the file as UTF-8")
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return loader.construct_document(node)
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # `!!int x`, a number of 5,000 digits
        if isinstance(error, yaml.YAMLError):
            raise
        why = _short_text(str(error))
        raise ConfigError(f"a value cannot be read ({why}); correct it, or put it in quotes") from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, with all that its aliases repeat.

    Args:
        known: the count of each node that was counted before, by its `id`; 0 while a node is being counted.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if (count := known.get(id(node))) is not None:
        if count == 0:
            raise ConfigError(f"line {node.start_mark.line + 1}: a value must not contain itself (`*` names it)")
        return count
    known[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    count = 1 + sum(_count(part, known, depth + 1) for part in inner)
    if count > MAX_VALUES:
        raise ConfigError(f"the file must describe at most {MAX_VALUES} values; its aliases (`*`) make it larger")
    known[id(node)] = count
    return count


def _hint(why: str) -> str:
    """Return what to do about a fault that the YAML reader names, or nothing."""
    if "unknown escape character" in why:
        return "; use single quotes ('...') for texts with a backslash"
    if "'\\t'" in why:
        return "; indent with spaces instead of tabs"
    if "expected a single document" in why:
        return "; keep one study in the file, without a line ---"
    if "special characters are not allowed" in why:
        return "; remove this character, which may be invisible"
    return ""


def _short_text(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _short(value: object) -> str:
    """Return a value as a message shows it; at most 200 characters of it."""
    try:
        return _short_text(repr(value))
    except ValueError:  # an integer of more digits than Python prints
        return "a number of several thousand digits"


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


def study_of_data(given: str, keys: Mapping[str, Any] | None = None) -> StudyConfig:
    """Return a study of these images with the default of every other key, to look at the images only.

    Args:
        given: path of a folder or table.
        keys: keys under `data`; those below others are joined by a dot, such as `split.group`.
    """
    document: dict[str, Any] = {}
    _override(document, Overrides(data=given, data_keys=keys or {}))
    return parse(document, given)


def parse(document: dict[str, Any], name: str) -> StudyConfig:
    """Return the checked study of a document; raise ConfigError with all faults."""
    faults: list[str] = []
    study: StudyConfig | None = None
    _join_own(document.get("search"))
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        faults += _without_repeated_keys(line for fault in error.errors() for line in _readable(fault))
    if study is not None:
        faults += _against_backbones(study)
        faults += faults_of_try(study)
    if study is None or faults:
        more = [f"… and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        shown = [_short_text(fault) if len(fault) > 2 * _SHOWN else fault for fault in faults[:_MOST_FAULTS]]
        raise ConfigError(f"{name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:", [*shown, *more])
    return study


def _join_own(search: Any) -> None:
    """Write backbones that YAML reads as mappings, `own: package.module:function`, as names."""
    if not isinstance(search, dict):
        return

    def joined(value: Any) -> Any:
        if isinstance(value, dict) and list(value) == ["own"] and isinstance(value["own"], str):
            return f"own:{value['own'].strip()}"
        return value

    for key, value in search.items():
        if key == "backbone":
            search[key] = [joined(one) for one in value] if isinstance(value, list) else joined(value)
        else:
            _join_own(value)


def data_key(text: str) -> tuple[str, Any]:
    """Return the key under `data` and the value in a text `KEY=VALUE`; the value is read as YAML.

    Raises:
        ConfigError: the text has another form, its value cannot be read, or it names the source.
    """
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("data.")
    if not equals or not key or not value.strip():
        raise ConfigError(f"--set must be KEY=VALUE with a key under `data`, but got {_short(text)}")
    if key.partition(".")[0] == "source":
        raise ConfigError("--set must not name data.source: give the folder or table as PATH, or by --data.")
    try:
        return key, _document(value)
    except (ConfigError, yaml.YAMLError, RecursionError) as error:
        why = _short_text(" ".join(str(error).split()))
        raise ConfigError(f"--set {key}: {value!r} is not valid YAML, as study files have it: {why}") from None


def _override(document: dict[str, Any], overrides: Overrides) -> bool:
    """Write the overrides into the document; return whether they replace data that the file names."""
    for key in ("weights", "trials", "epochs", "workers", "device"):
        value = getattr(overrides, key)
        if value is not None:
            document[key] = value
    if overrides.weights is not None and isinstance(document.get("search"), dict):
        document["search"].pop("weights", None)
    confirmation = document.setdefault("confirmation", {}) if overrides.seeds is not None else None
    if isinstance(confirmation, dict):
        confirmation["seeds"] = overrides.seeds
    for name, value in overrides.data_keys.items():
        below = document.setdefault("data", {})
        *above, last = name.split(".")
        for key in above:
            below = below.setdefault(key, {}) if isinstance(below, dict) else below
        if not isinstance(below, dict):
            raise ConfigError(f"data.{name} cannot be set, because {_short(below)} in its place has no keys.")
        below[last] = value
    if overrides.data is None:
        return False
    data = document.setdefault("data", {})
    named = not isinstance(data, dict) or data.get("source", "rendered_cells") is not None
    if isinstance(data, dict):
        path = Path(overrides.data).expanduser()
        is_table = path.suffix.lower() in TABLES and not path.is_dir()
        data["source"] = {"csv" if is_table else "folder": str(path.resolve())}
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
        text = f"{text[0].lower()}{text[1:]}, but got {_short(fault['input'])}"
    return [f"{where or 'the file'}: {text}"]


def _without_repeated_keys(lines: Iterable[str]) -> Iterator[str]:
    """Return the faults, with each list of the keys that may stand in a place only once."""
    told: set[str] = set()
    for line in lines:
        fault, _, keys = line.partition(_KEYS)
        yield fault if keys in told else line
        told |= {keys} if keys else set()


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
    return f"; did you mean {near[0]}?" if near else f"{_KEYS}{', '.join(known)}"


def _against_backbones(study: StudyConfig) -> list[str]:
    """Return faults in the backbones' names and image sizes, and unfreezing phases that get no epoch."""
    faults: list[str] = []
    spaces = {strategy: space(study, strategy) for strategy in study.strategies}
    backbones = dict.fromkeys(name for one in spaces.values() for name in one.ranges["backbone"].values())
    permit(backbones)
    for name in backbones:
        try:
            backbone_spec(name)
            if isinstance(study.data.image_size, int):
                check_image_size(name, study.data.image_size)
        except ConfigError as error:
            faults.append(f"search.backbone: {error}")
    if study.epochs != AUTO:
        faults += faults_of_phases(study)
    if study.search.get("backbone") is None and any(one.is_file for one in study.weights.entries):
        faults.append("search.backbone: must name the backbone that the checkpoint in `weights` belongs to")
    if study.data.resize == "weights" and study.data.image_size != "native":
        faults.append(
            f"data.image_size: must be native with `resize: weights`, whose crop has the weights' own size, but got "
            f"{study.data.image_size}"
        )
    return faults + _of_weights(study, backbones)


def _of_weights(study: StudyConfig, backbones: Iterable[str]) -> list[str]:
    """Return faults in the names of official weights, which every backbone must have."""
    faults = []
    for entry in study.weights.entries:
        for name in backbones:
            try:
                backbone_spec(name)
            except ConfigError:  # it is a fault of its own
                continue
            try:
                entry.official(name)
            except ConfigError as error:
                faults.append(f"weights: {error}")
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
