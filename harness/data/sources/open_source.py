"""Select the source of images that a study names. Other modules reach all sources by this function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.config.data import CsvSource, DataConfig, FolderSource, TorchvisionSource
from harness.data.decoding.rules import rules_of
from harness.data.groups import suggestion
from harness.data.sources.folder import list_folder
from harness.data.sources.frames import expand_frames
from harness.data.sources.labels import with_classes
from harness.data.sources.listing import Listing, told
from harness.data.sources.table import list_table
from harness.errors import ConfigError


def list_source(config: DataConfig, *, cache: Path) -> Listing:
    """List the images of `config.source`, with the classes that `config.classes` and `config.min_images` make.

    With `frames: each`, every frame of a file is an image.

    Raises:
        ConfigError: the study has no source, or names labels that the data do not have.
        DataError: the folder or table is missing or has faults, or its labels have.
        ResourceError: a data set to download is neither in the cache nor can it be reached.
    """
    listing = _listed(config, cache)
    if config.frames == "each":
        listing = expand_frames(listing, rules_of(config))
    with told(listing.reading):
        listing = with_classes(listing, config)
    if config.split.group is None and listing.root is not None and (hint := suggestion(listing.samples)) is not None:
        listing = replace(listing, warnings=(*listing.warnings, hint))
    return listing


def _listed(config: DataConfig, cache: Path) -> Listing:
    if config.source is None:
        raise ConfigError(config.wanted or "this study has no data of its own: give DATA=<folder or CSV file>")
    if isinstance(config.source, FolderSource):
        return list_folder(
            Path(config.source.folder).expanduser(), config.layout, grouped=config.split.group is not None
        )
    if isinstance(config.source, CsvSource):
        return list_table(
            Path(config.source.csv).expanduser(), config.split.group, columns=config.columns, root=config.root
        )
    if isinstance(config.source, TorchvisionSource):
        from harness.data.sources.torchvision import list_torchvision  # imports torch, which takes seconds

        return list_torchvision(config.source.torchvision, cache=cache)
    from harness.data.sources.rendered import list_rendered

    return list_rendered(cache=cache)
