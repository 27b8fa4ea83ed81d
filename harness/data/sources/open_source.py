"""The one door to all sources of images."""

from __future__ import annotations

from pathlib import Path

from harness.config.study import CsvSource, DataConfig, FolderSource, TorchvisionSource
from harness.data.sources.folder import list_folder
from harness.data.sources.listing import Listing
from harness.data.sources.table import list_table
from harness.errors import ConfigError


def list_source(config: DataConfig, *, cache: Path) -> Listing:
    """The images of `config.source`.

    Raises:
        ConfigError: no source is named.
        DataError: the folder or table is missing or cannot be used as it is.
        ResourceError: a download is neither cached nor reachable.
    """
    if config.source is None:
        raise ConfigError(config.wanted or "this study names no data: give them as DATA=<folder or CSV file>")
    if isinstance(config.source, FolderSource):
        return list_folder(Path(config.source.folder).expanduser())
    if isinstance(config.source, CsvSource):
        return list_table(Path(config.source.csv).expanduser(), config.split.group)
    if isinstance(config.source, TorchvisionSource):
        from harness.data.sources.torchvision import list_torchvision  # imports torch: seconds

        return list_torchvision(config.source.torchvision, cache=cache)
    from harness.data.sources.rendered import list_rendered

    return list_rendered(cache=cache)
