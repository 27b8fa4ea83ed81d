"""The harness. `read_image` is imported when it is first used, so that importing the package stays light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.read_image import read_image

__all__ = ["read_image"]


def __getattr__(name: str) -> Any:
    if name == "read_image":
        from harness.data.read_image import read_image

        return read_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
