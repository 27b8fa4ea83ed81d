"""The consoles that print all text: they escape control characters and mask passwords.

Names of folders, files and studies, and error messages that quote them, may contain escape sequences. These could move
the cursor, change the title of the window or hide earlier output. They are shown here as visible text. The colours and
cursor movements of rich are written separately and still work.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.safe_text import escape_controls, masked


class Terminal(Console):
    """A rich console without markup and emoji codes that escapes every text.

    Every renderable passes through `render`, also cells of tables and lines of progress bars. Plain texts pass through
    `render_str` before, so that a table measures the text that it will show.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_controls(masked(text)), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_controls(masked(segment.text)))


def take_warnings(console: Terminal) -> None:
    """Print Python's warnings on the console instead of directly to stderr, so that they are escaped too."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        console.print(warnings.formatwarning(message, category, filename, lineno, line).rstrip())

    warnings.showwarning = show


def replace_missing_characters() -> None:
    """Let both standard streams replace characters that their encoding lacks.

    A terminal or pipe in ASCII or Latin-1 (LANG=C, PYTHONIOENCODING=ascii) has no "·" and no "…", and a message must
    not end a study because of them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
