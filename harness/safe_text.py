"""Names of files and classes, and other people's texts, as text that is safe to show: without control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import quote

# Marks that reorder the text around them: a file name could make a line of output read backwards.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
_NO_XML = frozenset("\ufffe\uffff")  # no figure could hold them


def escape_name(name: str) -> str:
    """The name in NFC, where control, line-breaking and reordering characters are written as escapes.

    Bytes that are no UTF-8 (Python shows them as lone surrogates) become \\xNN, so the result can always be
    encoded. A clean name is unchanged.
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(_shown(character) for character in unicodedata.normalize("NFC", name))


def escape_controls(text: str) -> str:
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


MASK = "***"


# What follows the user's name, up to the last @ before a slash: a password may hold an @ that was not escaped.
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/\s]*@")


# SQLAlchemy reads on to the @ also where the password holds a slash; an address of the web cannot.
_DATABASE_PASSWORD = re.compile(r"(?i)(?<![\w+.-])(?!https?:)([a-z][\w+.-]*://[^/@\s:]*):(?!\*\*\*@)\S*@")


# MLflow's viewStateShareKey names a view of its own page, and the link that `make ui` prints needs it.
_PARAMETER = re.compile(
    r"(?i)([?&;](?!viewStateShareKey=)(?:[\w-]*(?:password|passwd|pwd|token|secret|key))=)" r"[^&;\s'\"]*"
)


def masked(text: str) -> str:
    """The text, every password, token and key of an address in it replaced by ***: fit for logs, pages and messages."""
    if "://" not in text:  # nearly every text; what follows costs microseconds
        return text
    text = _PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _DATABASE_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def lacks_password(address: str) -> bool:
    """Whether this is an address whose password was taken out."""
    return MASK in address and masked(address) == address


def with_password(address: str, password: str) -> str | None:
    """The address with its password again; None where more than one secret was taken out of it."""
    return address.replace(MASK, quote(password, safe="")) if address.count(MASK) == 1 else None
