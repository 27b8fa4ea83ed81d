"""The source of classification data sets that torchvision can download. A study names the data set's class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from harness.data.sources.listing import Listing, Sample, by_bytes
from harness.errors import ConfigError, DataError, ResourceError
from harness.safe_text import escape_name

# Tried in this order; a class raises ValueError for a split it does not have. Some data sets call their training part
# "trainval" or "all".
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_WHOLE = ("trainval", "all")


def list_torchvision(name: str, *, cache: Path) -> Listing:
    """List the images of `torchvision.datasets.<name>`; download them into the cache if they are not there yet.

    Parts that the class has (`train=`, `split=`) are fixed. Missing parts are drawn later from the training part.

    Raises:
        ConfigError: there is no such data set, or torchvision cannot download it.
        DataError: its targets are not classes.
        ResourceError: it is neither in the cache nor can it be reached.
    """
    import torchvision.datasets

    build = _class(torchvision.datasets, name)
    root = cache / "torchvision" / name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        try:
            parts = _parts(build, root)
        except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
            raise ResourceError(
                f"the data set {name} is neither cached nor reachable ({' '.join(str(error).split())[:200]}): "
                f"connect to the network once, put its files where torchvision expects them in {root}, "
                "or use your own images with {folder: PATH}."
            ) from None
    samples: list[Sample] = []
    places: list[tuple[Any, int]] = []
    classes: dict[str, None] = {}
    for part, dataset in parts:
        labels = _labels(name, dataset)
        names = _class_names(dataset, labels)
        classes.update(dict.fromkeys(names))
        for index, label in enumerate(labels):
            path = f"{part or 'all'}/{names[label]}/{index:07d}.png"
            samples.append(Sample(path, names[label], fixed_split=part))
            places.append((dataset, index))
    order = sorted(range(len(samples)), key=lambda row: by_bytes(samples[row].path))

    def fetch(index: int) -> Image.Image:
        dataset, place = places[order[index]]
        image = dataset[place][0]
        if not isinstance(image, Image.Image):
            raise DataError(f"is a {type(image).__name__} instead of an image")
        return image

    return Listing(
        name=name,
        source=f"torchvision {name}",
        samples=tuple(samples[row] for row in order),
        fetch=fetch,
        classes=tuple(sorted(classes, key=by_bytes)),
        split_from="folders" if any(sample.fixed_split for sample in samples) else "drawn",
    )


def _class(module: Any, name: str) -> Callable[..., Any]:
    def downloads(candidate: object) -> bool:
        return inspect.isclass(candidate) and "download" in inspect.signature(candidate).parameters

    found: Any = getattr(module, name, None)
    if not name.startswith("_") and downloads(found):
        build: Callable[..., Any] = found
        return build
    names = sorted(known for known in dir(module) if downloads(getattr(module, known)))
    raise ConfigError(
        f"torchvision cannot download a data set named {escape_name(name)!r}; it can download {', '.join(names)}"
    )


def _parts(build: Callable[..., Any], root: Path) -> list[tuple[str, Any]]:
    """Return (part, data set) for each part that the class has; one part "" if it has none."""
    parameters = inspect.signature(build).parameters
    common: dict[str, Any] = {"root": str(root), "download": True}
    if "train" in parameters:
        if "split" in parameters and parameters["split"].default is inspect.Parameter.empty:
            common["split"] = "balanced"  # EMNIST: this parameter selects one of its label sets
        return [("train", build(train=True, **common)), ("test", build(train=False, **common))]
    if "split" not in parameters:
        return [("", build(**common))]
    found = _offered(build, common, _SPLITS)
    if "train" not in dict(found):
        found += [("train", dataset) for _, dataset in _offered(build, common, dict.fromkeys(_WHOLE, "train"))[:1]]
    return found or [("", build(**common))]


def _offered(build: Callable[..., Any], common: dict[str, Any], splits: dict[str, str]) -> list[tuple[str, Any]]:
    found = []
    for split, part in splits.items():
        try:
            found.append((part, build(split=split, **common)))
        except ValueError:  # not one of this class's splits
            continue
    return found


def _labels(name: str, dataset: Any) -> list[int]:
    """Return the class index of every image; if the data set has a list of them, do not open the images."""
    for attribute in ("targets", "labels", "_labels", "y"):
        kept = getattr(dataset, attribute, None)
        if kept is not None and len(kept) == len(dataset):
            values: Sequence[Any] = np.asarray(kept).tolist()
            break
    else:
        values = [dataset[index][1] for index in range(len(dataset))]
    if not values or any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        raise DataError(
            f"the targets of a data set must be classes, but those of {name} are not; use another data set."
        )
    return list(values)


def _class_names(dataset: Any, labels: Sequence[int]) -> list[str]:
    for attribute in ("classes", "categories"):
        names = getattr(dataset, attribute, None)
        if isinstance(names, list | tuple) and len(names) > max(labels) and all(isinstance(n, str) for n in names):
            cleaned = [escape_name(n).replace("/", "\u2215") for n in names]
            if len(set(cleaned)) == len(cleaned):
                return cleaned
    width = len(str(max(labels)))
    return [f"{index:0{width}d}" for index in range(max(labels) + 1)]
