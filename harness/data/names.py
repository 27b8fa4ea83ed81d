"""Names of files and classes, and other people's texts, as text that is safe to show: without control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Marks that reorder the text around them: a file name could make a line of output read backwards.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
_NO_XML = frozenset("\ufffe\uffff")  # no figure could hold them


def clean(name: str) -> str:
    """The name in NFC, where control, line-breaking and reordering characters are written as escapes.

    Bytes that are no UTF-8 (Python shows them as lone surrogates) become \\xNN, so the result can always be
    encoded. A clean name is unchanged.
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(_shown(character) for character in unicodedata.normalize("NFC", name))


def neutral(text: str) -> str:
    """A text of any length for a terminal or a page: as `clean`, but line breaks, tabs and the form stay.

    A name is cleaned once, where it comes in; this is for the places where everything goes out.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in "\n\t" else _shown(character) for character in text)


def _shown(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _REORDERING or character in _NO_XML or unicodedata.category(character) in _INVISIBLE:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first few lines of a list, indented, and how many more there are."""
    lines = list(names)
    shown = [f"  - {line}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"  … and {len(lines) - most} more")
    return "\n".join(shown)
