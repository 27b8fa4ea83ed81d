"""Select the source of images that a study names. Other modules reach all sources by this function."""

from __future__ import annotations

from pathlib import Path

from harness.config.data import CsvSource, DataConfig, FolderSource, TorchvisionSource
from harness.data.decoding.rules import rules_of
from harness.data.sources.folder import list_folder
from harness.data.sources.frames import expand_frames
from harness.data.sources.listing import Listing
from harness.data.sources.table import list_table
from harness.errors import ConfigError


def list_source(config: DataConfig, *, cache: Path) -> Listing:
    """List the images of `config.source`; with `frames: each`, every frame of a file.

    Raises:
        ConfigError: the study has no source.
        DataError: the folder or table is missing or has faults.
        ResourceError: a data set to download is neither in the cache nor can it be reached.
    """
    listing = _listed(config, cache)
    return expand_frames(listing, rules_of(config)) if config.frames == "each" else listing


def _listed(config: DataConfig, cache: Path) -> Listing:
    if config.source is None:
        raise ConfigError(config.wanted or "this study has no data of its own: give DATA=<folder or CSV file>")
    if isinstance(config.source, FolderSource):
        return list_folder(Path(config.source.folder).expanduser())
    if isinstance(config.source, CsvSource):
        return list_table(Path(config.source.csv).expanduser(), config.split.group)
    if isinstance(config.source, TorchvisionSource):
        from harness.data.sources.torchvision import list_torchvision  # imports torch, which takes seconds

        return list_torchvision(config.source.torchvision, cache=cache)
    from harness.data.sources.rendered import list_rendered

    return list_rendered(cache=cache)
