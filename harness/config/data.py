"""DataConfig: the keys under `data` of a study file, with their types, defaults and descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness.config.strict_model import StrictModel

BitDepth = Literal["dtype", "used", "minmax", 8, 10, 12, 14, 16]
Frames = Literal["first", "max", "mean", "each"]
Near = Literal["error", "group", "keep"]
NotFinite = Literal["error", "background"]
COLOURS = ("red", "green", "blue")
MAX_CHANNELS = 16  # of an image that is trained on


class SplitConfig(StrictModel):
    """How the images are divided: fractions of all images for validation and test; the other images train."""

    validation: float = Field(0.2, gt=0, lt=1, description="share of all images for choosing configurations")
    test: float = Field(0.2, gt=0, lt=1, description="share of all images for the verdict, scored once")
    seed: int = Field(0, ge=0, description="seed of the random split")
    group: str | None = Field(
        None,
        description="what images of one group have in common: a regular expression (its first group, or the whole "
        "match) on the file name, or, if it contains a /, on the path below the data folder; or a column of the table",
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must leave images to train on, but got {self.validation} + {self.test}"
            )
        return self


class ClassesConfig(StrictModel):
    """Which labels become one class, and which images are left out, by the label that folder or table gives them."""

    merge: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="new name of a class: the labels that it takes in, as in {wbc: [monocyte]}"
    )
    drop: tuple[str, ...] = Field((), description="labels whose images are left out")

    @model_validator(mode="after")
    def _each_label_once(self) -> ClassesConfig:
        named = [label for labels in self.merge.values() for label in labels] + list(self.drop)
        twice = sorted({label for label in named if named.count(label) > 1})
        if twice:
            raise ValueError(f"must name each label once, but {', '.join(twice)} is named twice")
        empty = sorted(name for name, labels in self.merge.items() if not labels)
        if empty:
            raise ValueError(f"must name the labels of each merged class, but {', '.join(empty)} has none")
        return self


class DedupeConfig(StrictModel):
    """What happens to copies of an image. `dedupe: train` is short for `dedupe: {exact: train}`."""

    exact: Literal["error", "train"] = Field(
        "error",
        description="an image in two fixed splits: stop with the pairs, or put all copies into the training part",
    )
    near: Near = Field(
        "group",
        description="nearly the same image again (cut, shifted, recompressed, brighter): stop with the pairs, keep "
        "them in one part of the split, or only report them (keep)",
    )


class ColumnsConfig(StrictModel):
    """The columns of a table by their names in it; without a name, the usual names are looked for."""

    path: str | None = Field(None, description="column of the table with the file names")
    label: str | None = Field(None, description="column with the classes")
    split: str | None = Field(None, description="column with train, validation or test")


def _dedupe(value: object) -> object:
    return {"exact": value} if isinstance(value, str) else value


class FolderSource(StrictModel):
    folder: str


class CsvSource(StrictModel):
    csv: str


class TorchvisionSource(StrictModel):
    torchvision: str


Source = Literal["rendered_cells"] | FolderSource | CsvSource | TorchvisionSource


class DataConfig(StrictModel):
    """Where the images come from and how they are read."""

    source: Source | None = Field(
        "rendered_cells", description="rendered_cells, {folder: PATH}, {csv: PATH}, {torchvision: NAME}, or null"
    )
    name: str | None = Field(
        None, max_length=80, description="name of the data on the page; without it, the source's own name"
    )
    wanted: str | None = Field(None, description="message that is shown if `source` is null and no DATA is given")
    layout: str | None = Field(
        None,
        description="what the levels of folders are, from the top: class, split, group, * (any) or a folder's name, "
        "joined by /, as in split/class or class/images; without it, the levels are recognised",
    )
    root: str | None = Field(None, description="folder to which the paths of a table are relative; its own without it")
    columns: ColumnsConfig = Field(default_factory=ColumnsConfig)
    classes: ClassesConfig = Field(default_factory=ClassesConfig)
    min_images: int | None = Field(
        None, ge=1, description="classes with fewer images are left out; without it, too small a class is refused"
    )
    channels: Literal["all"] | tuple[int, ...] | dict[str, int | tuple[int, ...]] | None = Field(
        None,
        description="channels of the file, counted from 0: [2, 0, 1] takes three as red, green and blue, {red: 0, "
        "green: [1, 3]} shows means of channels, all trains on every one; without it, files must be grey or have three",
    )
    frames: Frames = Field(
        "first",
        description="of a z-stack, time series or animation: first, max or mean of all planes, or each as an image",
    )
    image_size: int | Literal["native"] = Field(
        64, description="pixels a side, or native: the size that the backbone's official weights were evaluated at"
    )
    resize: Literal["stretch", "pad", "crop", "weights"] = Field(
        "stretch",
        description="how an image becomes square: stretch, pad with the background, crop the middle, or weights: the "
        "transform that each backbone's official weights were evaluated with (image_size: native)",
    )
    bit_depth: BitDepth = Field(
        "dtype",
        description="full scale of images with more than 8 bits: dtype (65535, or of the file's own bits; 1 for float "
        "images), a number of bits, "
        "used (the range of the training images) or minmax of each image",
    )
    not_finite: NotFinite = Field(
        "error", description="NaN and infinite values of float images: refuse the file, or show the background there"
    )
    background: tuple[int, int, int] = Field(
        (255, 255, 255), description="colour (red, green, blue) behind transparent pixels and of padding"
    )
    on_bad: Literal["error", "skip"] = Field(
        "error", description="unreadable files: stop with a list of them, or skip them"
    )
    dedupe: Annotated[DedupeConfig, BeforeValidator(_dedupe)] = Field(default_factory=DedupeConfig)
    max_megapixels: float = Field(50, gt=0, le=2000, description="largest image that is read, in millions of pixels")
    limit: int | None = Field(
        None, ge=1, description="largest number of training and validation images together; the test split stays whole"
    )
    split: SplitConfig = Field(default_factory=SplitConfig)

    @field_validator("image_size")
    @classmethod
    def _size(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 16 <= value <= 2048:
            raise ValueError(f"must lie in 16..2048 pixels, but got {value}")
        return value

    @field_validator("layout")
    @classmethod
    def _levels(cls, value: str | None) -> str | None:
        if value is None:
            return value
        levels = [level.strip() for level in value.strip().strip("/").split("/")]
        said = f"but got {value!r}; it is made of class, split, group, * and names of folders, joined by /"
        if not all(levels) or {".", ".."} & set(levels):
            raise ValueError(f"must name a level between every two /, {said}")
        if levels.count("class") != 1:
            raise ValueError(f"must name the level class once, {said}")
        if twice := [level for level in ("split", "group") if levels.count(level) > 1]:
            raise ValueError(f"must name the level {' and '.join(twice)} at most once, {said}")
        return "/".join(levels)

    @model_validator(mode="after")
    def _groups_once(self) -> DataConfig:
        if self.layout is not None and "group" in self.layout.split("/") and self.split.group is not None:
            raise ValueError(
                f"layout: {self.layout} and split.group: {self.split.group} both give the groups; keep one of them"
            )
        return self

    @field_validator("channels")
    @classmethod
    def _channels(cls, value: object) -> object:
        if isinstance(value, tuple):
            if len(value) != 3:
                raise ValueError(f"must name three channels (red, green, blue), but got {list(value)}")
            numbers = list(value)
        elif isinstance(value, dict):
            if unknown := sorted(set(value) - set(COLOURS)):
                raise ValueError(f"must map red, green and blue to channels, but got {', '.join(unknown)}")
            if not value:
                raise ValueError("must map red, green or blue to a channel, but is empty")
            numbers = [n for entry in value.values() for n in (entry if isinstance(entry, tuple) else (entry,))]
            if any(entry == () for entry in value.values()):
                raise ValueError("must name a channel for each colour that it names")
        else:
            return value
        if any(not 0 <= number < MAX_CHANNELS for number in numbers):
            raise ValueError(f"must be numbers of channels in 0..{MAX_CHANNELS - 1}, but got {numbers}")
        return value

    @field_validator("background")
    @classmethod
    def _colour(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(not 0 <= channel <= 255 for channel in value):
            raise ValueError(f"must be three numbers in 0..255, but got {list(value)}")
        return value
