"""Safe text: escapes control characters in names and texts from outside, and masks passwords in addresses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import quote

# Characters that reorder the text around them: with one of them, a file name could make a line read backwards.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
_NO_XML = frozenset("\ufffe\uffff")  # not allowed in XML, and so not in an SVG figure


def escape_name(name: str) -> str:
    """Return the name in NFC, with escapes for control, line-breaking and reordering characters.

    Bytes that are not UTF-8 (Python represents them as lone surrogates) become \\xNN, so that the result can always be
    encoded. A name without such characters does not change.
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(_shown(character) for character in unicodedata.normalize("NFC", name))


def escape_controls(text: str) -> str:
    """Return a text that is safe for a terminal or a page: as `escape_name`, but line breaks, tabs and the form stay.

    Names are escaped once, when they are read. This function is for the places where all text leaves the program.
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
    """Return the first `most` names as an indented list, and a line with the number of the others."""
    lines = list(names)
    shown = [f"  - {line}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"  … and {len(lines) - most} more")
    return "\n".join(shown)


MASK = "***"


# From the user's name to the last @ before a slash: a password may contain an @ that was not escaped.
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/\s]*@")


# In SQLAlchemy's addresses a password may also contain a slash; in web addresses it cannot.
_DATABASE_PASSWORD = re.compile(r"(?i)(?<![\w+.-])(?!https?:)([a-z][\w+.-]*://[^/@\s:]*):(?!\*\*\*@)\S*@")


# MLflow's viewStateShareKey names a view of its own page, and the link that `make ui` prints needs it.
_PARAMETER = re.compile(
    r"(?i)([?&;](?!viewStateShareKey=)(?:[\w-]*(?:password|passwd|pwd|token|secret|key))=)" r"[^&;\s'\"]*"
)


def masked(text: str) -> str:
    """Replace every password, token and key of an address in the text by ***."""
    if "://" not in text:  # true for nearly every text, and saves the microseconds of the searches below
        return text
    text = _PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _DATABASE_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def lacks_password(address: str) -> bool:
    """Return whether this is an address whose password was masked."""
    return MASK in address and masked(address) == address


def with_password(address: str, password: str) -> str | None:
    """Put the password back into a masked address; return None if more than one secret was masked."""
    return address.replace(MASK, quote(password, safe="")) if address.count(MASK) == 1 else None
