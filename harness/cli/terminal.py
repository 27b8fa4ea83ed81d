"""The one way to the terminal: whatever a text holds, it steers nothing, and no password is in it.

Names of folders, files and studies, and errors of libraries that quote them, may carry escape sequences, which would
move the cursor, retitle the window or hide what was said before. Here they become visible text. rich writes its own
colours and cursor movements beside the texts, so they are not concerned.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.safe_text import escape_controls, masked


class Terminal(Console):
    """A rich console without markup and emoji codes, whose every text is neutral.

    Each renderable, the cells of tables and the lines of progress bars too, comes through `render`; plain texts come
    through `render_str` before, so that a table measures what it will show.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_controls(masked(text)), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_controls(masked(segment.text)))


def take_warnings(console: Terminal) -> None:
    """Send Python's warnings through the console, which it would write to stderr itself."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        console.print(warnings.formatwarning(message, category, filename, lineno, line).rstrip())

    warnings.showwarning = show
