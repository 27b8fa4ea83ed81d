"""The keys under `data` that decide how one file is read, checked as in a study file."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from harness.config.data import DataConfig
from harness.errors import ConfigError

READING_KEYS = ("channels", "frames", "bit_depth", "not_finite", "background", "max_megapixels", "image_size", "resize")


def reading_config(keys: dict[str, Any]) -> DataConfig:
    """Return the keys as a DataConfig, with the defaults of all others.

    Raises:
        ConfigError: a key is unknown, or its value is not allowed; all faults are listed.
    """
    unknown = sorted(set(keys) - set(READING_KEYS))
    if unknown:
        raise ConfigError(f"read_image has no key {', '.join(unknown)}; it has {', '.join(READING_KEYS)}.")
    try:
        return DataConfig.model_validate(keys)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {str(fault['msg']).removeprefix('Value error, ')}" for fault in error.errors()]
        raise ConfigError("read_image was given values that are not allowed:", list(dict.fromkeys(faults))) from None
