"""Passwords in addresses: taken out before an address is stored, shown or sent."""

from __future__ import annotations

import re
from urllib.parse import quote

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
