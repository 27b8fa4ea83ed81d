"""Backbones of your own: `own:package.module:function` names a function that returns a `Backbone`.

The function is your code: it is imported and called when a study file that names it is loaded, checked or run, and
never because of a stored study, which may be from someone else. docs/extending.md shows one.

This module does not import torch; looking a name up does.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.backbone_specs import BackboneSpec, Normalisation
from harness.errors import ConfigError
from harness.model.own_backbone import Backbone as Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.model.backbones import Step

PREFIX = "own:"
_FORM = re.compile(r"own:[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def _function(name: str) -> Callable[..., Any]:
    """Import the function that a name stands for.

    Raises:
        ConfigError: the name has another form, or there is no such module or function.
    """
    if not _FORM.fullmatch(name):
        raise ConfigError(f"a backbone of your own is written own:package.module:function, but got {name!r}.")
    module_name, _, function_name = name.removeprefix(PREFIX).partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module can fail in any way
        raise ConfigError(
            f"{name} must name a module that can be imported from {here} or from the installed packages, but importing "
            f"{module_name} failed: {type(error).__name__}: {error}"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        there = sorted(key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_")
        names = ", ".join(there) or "none"
        raise ConfigError(f"{module_name} must have the function {function_name}, but its functions are: {names}.")
    found: Callable[..., Any] = function
    return found


def _call(name: str, image_size: int | None) -> Backbone:
    """Call the function, with the image size if it has a parameter of that name; None stands for the native size.

    Raises:
        ConfigError: it fails, or returns something else.
    """
    function = _function(name)
    try:
        sized = "image_size" in inspect.signature(function).parameters
        made = function(image_size=image_size) if sized else function()
    except ConfigError:
        raise
    except Exception as error:  # the user's function can fail in any way
        raise ConfigError(f"{name} must return a Backbone, but it failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Backbone):
        raise ConfigError(
            f"{name} must return a Backbone of harness.model.own_source, but it returned a {type(made).__name__}."
        )
    return made


@cache
def _spec(name: str) -> BackboneSpec:
    import torch

    from harness.model.own_checks import BATCHNORM, draws, faults

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made = _call(name, None)
        found = faults(made)
    if found:
        raise ConfigError(f"the Backbone that {name} returns does not fit:", found)
    layers = [layer for stage in made.stages.values() for layer in stage.modules()]
    return BackboneSpec(
        name=name,
        family=name,
        native_size=made.native_size,
        min_size=made.min_size,
        multiple_of=made.multiple_of,
        normalisation=Normalisation(made.mean, made.std),
        official_weights=made.official_weights.name if made.official_weights else "none",
        licence=made.licence,
        has_batchnorm=any(isinstance(layer, BATCHNORM) for layer in layers),
        has_random_layers=any(draws(layer) for layer in layers),
        feature_dim=made.features,
    )


class OwnSpecs(Mapping[str, BackboneSpec]):
    """The specs by name. There is no list of them: any function can be named, and is called when it is looked up."""

    def __getitem__(self, name: str) -> BackboneSpec:
        return _spec(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(PREFIX)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class OwnSource:
    """The source of functions of yours. See `harness.model.backbones.BackboneSource` for its methods."""

    def build(self, name: str, image_size: int) -> nn.Module:
        from harness.model.own_checks import whole

        return whole(_call(name, image_size))

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        return _made(model).stages

    def head(self, model: nn.Module, name: str) -> nn.Module:
        return _made(model).head

    def official_file(self, name: str, weights: str = "") -> Path:
        path = _call(name, None).official_weights
        if path is None:
            raise ConfigError(f"{name} names no official_weights; give a file as `weights`, or `weights: none`.")
        if not path.is_file():
            raise ConfigError(f"official_weights of {name} must be a file, but there is no {path}.")
        return path

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(values)

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        return None

    def is_random(self, layer: nn.Module) -> bool:
        from harness.model.own_checks import is_random

        return is_random(layer)

    def version(self, name: str) -> str:
        return f"{name} {digest(name)}"


def _made(model: nn.Module) -> Backbone:
    made = model.__dict__["harness_backbone"]
    assert isinstance(made, Backbone)
    return made


def digest(name: str) -> str:
    """Return sixteen hex digits of the SHA-256 of the file that has the function; "" if it has no file."""
    path = inspect.getsourcefile(inspect.unwrap(_function(name)))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path is not None else ""


SPECS = OwnSpecs()
SOURCE = OwnSource()
